import pytest

from storage.contract import FinishReason
from storage.errors import ContextLengthExceeded, InvalidRequest, SettingInvalid
from tests.engine.checked import EOS, LIMITS, TEXT, CheckedRunner, expected_output, ids_of, request, run, text_of
from workers.engine.engine import Engine
from workers.engine.limits import EngineLimits
from workers.engine.sequence import SequenceRequest
from workers.text.stream import TextFactory


@pytest.fixture
def runner() -> CheckedRunner:
    return CheckedRunner()


@pytest.fixture
def engine(runner: CheckedRunner) -> Engine:
    return Engine(runner, TEXT, LIMITS)


def sequences(count: int, **changes: object) -> list[SequenceRequest]:
    return [request(f"s{i}", num_prompt=2 + 3 * i, seed=i, **changes) for i in range(count)]  # type: ignore[arg-type]


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


def test_a_long_prompt_is_computed_in_chunks_and_does_not_stop_running_sequences(
    engine: Engine, runner: CheckedRunner
) -> None:
    engine.add(request("running", seed=1, max_tokens=20))
    engine.step()
    engine.add(request("long", num_prompt=30))

    steps = [[output.sequence_id for output in engine.step()] for _ in range(5)]

    assert steps == [["running"]] * 4 + [["running", "long"]]


def test_a_lower_priority_number_leaves_the_waiting_line_first(engine: Engine, runner: CheckedRunner) -> None:
    for name, priority in (("late", 5), ("normal", 0), ("first", -1), ("second", 0)):
        engine.add(request(name, num_prompt=7, priority=priority))

    for _ in range(4):
        engine.step()

    entered = list(dict.fromkeys(name for batch in runner.batches for name in batch))
    assert entered == ["first", "normal", "second", "late"]


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


@pytest.mark.parametrize("stop", [(), ("QRS",)])
def test_a_resumed_sequence_goes_on_after_its_emitted_ids(engine: Engine, stop: tuple[str, ...]) -> None:
    whole = request("s", seed=4, max_tokens=10, stop=stop)
    undisturbed = run(engine, whole)["s"]
    ids = ids_of(undisturbed)
    for cut in range(len(ids)):
        resumed = run(engine, request("s", seed=4, max_tokens=10, stop=stop, emitted=tuple(ids[:cut])))["s"]
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


def test_a_cancelled_sequence_is_silent_and_frees_its_row(engine: Engine, runner: CheckedRunner) -> None:
    for one in sequences(6):
        engine.add(one)
    engine.step()
    for name in ("s0", "s5", "unknown"):
        engine.cancel(name)
    engine.cancel("s0")

    outputs = run(engine)

    assert set(outputs) == {"s1", "s2", "s3", "s4"}
    assert not any(runner.rows)


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
        engine.add(request("s", max_tokens=0))
    for foreign in (-1, LIMITS.vocab_size):
        with pytest.raises(InvalidRequest):
            engine.add(request("s", emitted=(foreign,)))
    assert engine.num_waiting == 1


def test_logits_that_are_not_finite_fail_one_sequence_alone(engine: Engine, runner: CheckedRunner) -> None:
    undisturbed = run(engine, *sequences(4))
    runner.not_finite.add("s2")

    outputs = run(engine, *sequences(4))

    failure = outputs.pop("s2")[-1].failure
    assert failure is not None
    assert failure.code == "numerical_error"
    assert outputs == {name: undisturbed[name] for name in outputs}
    assert not any(runner.rows)


def test_a_step_that_fails_once_is_forgotten(engine: Engine, runner: CheckedRunner) -> None:
    undisturbed = run(engine, *sequences(6))
    for num_steps in range(8):
        for one in sequences(6):
            engine.add(one)
        outputs = [output for _ in range(num_steps) for output in engine.step()]
        runner.num_faults = 1
        rest = run(engine)

        for name, expected in undisturbed.items():
            assert [one for one in outputs if one.sequence_id == name] + rest.get(name, []) == expected


def test_a_sequence_that_breaks_every_step_fails_alone(engine: Engine, runner: CheckedRunner) -> None:
    undisturbed = run(engine, *sequences(6))
    runner.breaking |= {"s1", "s4"}

    outputs = run(engine, *sequences(6))

    for name in ("s1", "s4"):
        (last,) = outputs.pop(name)
        assert last.failure is not None
        assert last.failure.code == "engine_fault"
    assert outputs == {name: undisturbed[name] for name in outputs}


def test_steps_that_fail_for_ever_end_every_sequence(engine: Engine, runner: CheckedRunner) -> None:
    runner.num_faults = 1000

    outputs = run(engine, *sequences(6))

    assert {name: len(got) for name, got in outputs.items()} == {f"s{i}": 1 for i in range(6)}
    assert all(got[0].failure is not None for got in outputs.values())


def test_an_error_in_the_text_of_one_sequence_fails_it_alone(runner: CheckedRunner) -> None:
    def decode(ids: list[int]) -> str:
        if 39 in ids:
            raise ValueError("no such letter")
        return TEXT._decode(ids)

    requests = [request(f"s{i}", seed=i, max_tokens=20) for i in range(12)]
    engine = Engine(runner, TextFactory(decode, range(1, 40)), LIMITS)

    outputs = run(engine, *requests)

    failed = {name for name, got in outputs.items() if got[-1].failure is not None}
    assert failed == {one.sequence_id for one in requests if 39 in expected_output(one)[0]} != set()


def test_limits_that_would_starve_a_row_are_refused() -> None:
    with pytest.raises(SettingInvalid, match="max_batch_tokens"):
        EngineLimits(num_rows=8, max_len=10, max_batch_tokens=7, vocab_size=10)
    with pytest.raises(SettingInvalid, match="1 row"):
        EngineLimits(num_rows=0, max_len=10, max_batch_tokens=7, vocab_size=10)
