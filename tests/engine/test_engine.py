import pytest

from storage.contract import FinishReason
from storage.errors import ContextLengthExceeded, InvalidRequest
from tests.engine.checked import EOS, LIMITS, TEXT, expected_output, ids_of, request, run, said, sequences, text_of
from workers.engine.engine import Engine


def test_every_sequence_gets_its_own_tokens_and_one_last_output(engine: Engine) -> None:
    requests = sequences(9)

    outputs = run(engine, *requests)

    for one in requests:
        ids, finish = expected_output(one)
        got = outputs[one.sequence_id]
        assert ids_of(got) == ids
        assert [output.finish for output in got if output.is_last] == [finish]
        assert got[-1].is_last
    assert engine.num_running == engine.num_waiting == 0


def test_text_of_a_stop_string_is_not_given_out(engine: Engine) -> None:
    ids, _ = expected_output(request("s", seed=2, max_tokens=12))
    text = TEXT._decode(ids)
    outputs = run(engine, request("s", seed=2, max_tokens=12, stop=(text[3:6],)))["s"]

    assert text_of(outputs) == text[:3]
    assert ids_of(outputs) == ids[:6]
    assert outputs[-1].finish is FinishReason.STOP


def test_the_last_output_flushes_the_beginning_of_a_stop_string_that_never_came(engine: Engine) -> None:
    ids, _ = expected_output(request("s", seed=2, max_tokens=5))
    text = TEXT._decode(ids)
    outputs = run(engine, request("s", seed=2, max_tokens=5, stop=(text[3:] + "?",)))["s"]

    assert [output.text for output in outputs] == [text[0], text[1], text[2], "", text[3:]]
    assert outputs[-1].finish is FinishReason.LENGTH


def test_a_stop_string_before_min_tokens_does_not_end_a_sequence(engine: Engine) -> None:
    ids, _ = expected_output(request("s", seed=2, max_tokens=12))
    text = TEXT._decode(ids)

    outputs = run(engine, request("s", seed=2, max_tokens=12, stop=(text[2:4], text[6:8]), min_tokens=5))["s"]

    assert text_of(outputs) == text[:6]
    assert ids_of(outputs) == ids[:8]


def test_an_ignored_end_of_sequence_id_is_a_token_like_any_other(engine: Engine) -> None:
    requests = [request(f"s{seed}", seed=seed, max_tokens=20, ignore_eos=True) for seed in range(40)]

    outputs = run(engine, *requests)

    assert any(EOS in ids_of(got)[:-1] for got in outputs.values())
    assert {len(ids_of(got)) for got in outputs.values()} == {20}
    assert {got[-1].finish for got in outputs.values()} == {FinishReason.LENGTH}


def test_a_stop_token_id_ends_a_sequence_and_has_no_text(engine: Engine) -> None:
    ids, _ = expected_output(request("s", seed=2, max_tokens=12))

    got = run(engine, request("s", seed=2, max_tokens=12, stop_token_ids=(ids[4],)))["s"]

    assert ids_of(got) == ids[:5]
    assert text_of(got) == TEXT._decode(ids[:4])
    assert got[-1].finish is FinishReason.STOP


@pytest.mark.parametrize("stop", [(), ("QRS",)])
def test_a_resumed_sequence_goes_on_after_its_emitted_ids(engine: Engine, stop: tuple[str, ...]) -> None:
    whole = request("s", seed=4, max_tokens=10, stop=stop)
    undisturbed = said(run(engine, whole))["s"]
    ids = ids_of(undisturbed)
    for cut in range(len(ids)):
        resumed = said(run(engine, request("s", seed=4, max_tokens=10, stop=stop, emitted=tuple(ids[:cut]))))["s"]
        assert resumed == undisturbed[cut:]


def test_emitted_ids_that_end_the_sequence_yield_a_last_output_without_ids(engine: Engine) -> None:
    engine.add(request("eos", emitted=(5, EOS)))
    engine.add(request("length", max_tokens=2, emitted=(5, 6), stop=("FX",)))
    engine.add(request("stop", emitted=(5, 6), stop=("EF",)))

    outputs = {output.sequence_id: output for output in engine.step()}

    assert {name: (one.token_ids, one.text, one.finish) for name, one in outputs.items()} == {
        "eos": ((), "", FinishReason.STOP),
        "length": ((), "F", FinishReason.LENGTH),
        "stop": ((), "", FinishReason.STOP),
    }
    assert not engine.has_work


def test_a_cancelled_sequence_is_silent_and_frees_its_blocks(engine: Engine) -> None:
    for one in sequences(6):
        engine.add(one)
    engine.step()
    for name in ("s0", "s5", "unknown"):
        engine.cancel(name)
    engine.cancel("s0")

    outputs = run(engine)

    assert set(outputs) == {"s1", "s2", "s3", "s4"}
    assert engine.stats().num_blocks_used == 0


def test_a_cancelled_sequence_that_had_ended_at_once_is_silent(engine: Engine) -> None:
    engine.add(request("s", emitted=(EOS,)))
    engine.cancel("s")

    assert not engine.has_work


def test_what_can_never_run_is_refused(engine: Engine) -> None:
    engine.add(request("fits", num_prompt=40, max_tokens=8))

    with pytest.raises(ContextLengthExceeded, match="at most 48"):
        engine.add(request("s", num_prompt=41, max_tokens=8))
    with pytest.raises(InvalidRequest):
        engine.add(request("s", num_prompt=0))
    with pytest.raises(InvalidRequest):
        engine.add(request("s", max_tokens=-1))
    for foreign in (-1, LIMITS.vocab_size):
        with pytest.raises(InvalidRequest):
            engine.add(request("s", emitted=(foreign,)))
        with pytest.raises(InvalidRequest):
            engine.add(request("s", logit_bias=((foreign, 1.0),)))
    assert engine.num_waiting == 1
