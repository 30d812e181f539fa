"""Limits of thoughts: the closing marker is forced at the token, with and without a grammar, also after a resume."""

from collections.abc import Callable

import pytest
from msgspec import structs

from storage.contract import FinishReason, OutputFormat, ThinkingLimits
from tests.engine import invariants
from tests.engine.checked import LIMITS, TEXT, ids_of, request, run, text_of
from tests.engine.constrained import ConstrainedRunner, constrained
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceOutput, SequenceRequest

# Letters are tokens: a thought is what stands between "X" and "YZ".
OPENING, CLOSING = 24, (25, 26)


def output_of(max_tokens: int | None, *, is_open: bool = True) -> OutputFormat:
    return OutputFormat(
        thinking=ThinkingLimits(opening="X", closing="YZ", closing_ids=CLOSING, is_open=is_open, max_tokens=max_tokens)
    )


@pytest.fixture(params=[0, 1], ids=["in step", "one ahead"])
def engine_of(request: pytest.FixtureRequest) -> Callable[..., Engine]:
    return lambda: Engine(ConstrainedRunner(num_ahead=request.param), TEXT, LIMITS)


def whole(engine: Engine, *requests: SequenceRequest) -> dict[str, list[SequenceOutput]]:
    outputs = run(engine, *requests)
    invariants.check(engine)
    assert engine._runner.broken == []  # type: ignore[attr-defined]  # a ConstrainedRunner
    return outputs


def free(sequence_id: str, output: OutputFormat, **changes: object) -> SequenceRequest:
    """Without a grammar, and without the letters of the markers unless they are forced."""
    one = request(sequence_id, **{"max_tokens": 12, "ignore_eos": True, **changes})  # type: ignore[arg-type]
    return structs.replace(one, output=output)


@pytest.mark.parametrize("logprobs", [None, 1])
@pytest.mark.parametrize("max_tokens", [0, 1, 2, 5])
def test_a_thought_is_closed_at_its_limit(
    engine_of: Callable[..., Engine], max_tokens: int, logprobs: int | None
) -> None:
    for seed in range(8):
        one = free(f"s{seed}", output_of(max_tokens), seed=seed, logprobs=logprobs)

        outputs = whole(engine_of(), one)[f"s{seed}"]

        ids, text = ids_of(outputs), text_of(outputs)
        thought = text.index("YZ")
        assert thought <= max_tokens
        if thought < max_tokens:
            # The model closed it by itself, or wrote the first letter of the marker at the limit.
            continue
        assert ids[max_tokens : max_tokens + 2] == list(CLOSING)
        assert len(ids) == 12
        if logprobs is not None:
            assert [ranked.token_id for output in outputs for ranked in output.logprobs] == ids


def test_each_thought_has_the_limit(engine_of: Callable[..., Engine]) -> None:
    grammar = 'start: /[A-C]{0,9}/ "YZ" "DX" /[A-C]{0,9}/ "YZ" "E"'

    (outputs,) = whole(
        engine_of(),
        structs.replace(constrained("s", grammar, max_tokens=24), output=output_of(3)),
    ).values()

    first, second = text_of(outputs).removesuffix("E").split("DX")
    assert len(first) <= 5
    assert len(second) <= 5
    assert outputs[-1].finish is FinishReason.STOP


def test_the_tokens_of_one_output_belong_to_a_thought_or_not(engine_of: Callable[..., Engine]) -> None:
    grammar = 'start: /[A-C]+/ "YZDEFG" /[H-J]/ "K"'
    for logprobs in (None, 0):
        one = structs.replace(constrained("s", grammar, logprobs=logprobs), output=output_of(2))

        outputs = whole(engine_of(), one)["s"]

        assert not [output.text for output in outputs if "Z" in output.text and not output.text.endswith("Z")]
        assert text_of(outputs)[-6:-2] == "DEFG"
        assert len(text_of(outputs)) in (9, 10)


def test_a_limited_thought_resumes_from_any_token(engine_of: Callable[..., Engine]) -> None:
    grammar = 'start: /[A-C]+/ "YZDE" /[H-J]{3}/'
    for logprobs in (None, 0):
        for one in (
            structs.replace(constrained("s", grammar, seed=3, logprobs=logprobs), output=output_of(4)),
            free("s", output_of(4), seed=5, logprobs=logprobs),
        ):
            undisturbed = whole(engine_of(), structs.replace(one, matcher=fresh(one, grammar)))["s"]
            ids = ids_of(undisturbed)
            for place in range(1, len(ids)):
                again = structs.replace(one, matcher=fresh(one, grammar), emitted=tuple(ids[:place]))

                assert ids[:place] + ids_of(whole(engine_of(), again)["s"]) == ids


def fresh(one: SequenceRequest, grammar: str) -> object:
    return None if one.matcher is None else constrained("s", grammar).matcher


def test_a_limited_thought_stands_among_free_sequences(engine_of: Callable[..., Engine]) -> None:
    alone = {f"s{seed}": free(f"s{seed}", output_of(seed), seed=seed) for seed in range(6)}
    expected = {name: ids_of(whole(engine_of(), one)[name]) for name, one in alone.items()}
    plain = [request(f"p{seed}", num_prompt=9, max_tokens=14, seed=seed) for seed in range(4)]

    outputs = whole(
        engine_of(),
        *[one for pair in zip(alone.values(), plain, strict=False) for one in pair],
        *list(alone.values())[4:],
    )

    assert {name: ids_of(outputs[name]) for name in alone} == expected


def test_a_closing_marker_that_closes_nothing_is_forced_once(engine_of: Callable[..., Engine]) -> None:
    output = OutputFormat(
        thinking=ThinkingLimits(opening="X", closing="never", closing_ids=CLOSING, is_open=True, max_tokens=2)
    )

    (outputs,) = whole(engine_of(), free("s", output, seed=1, max_tokens=9)).values()

    assert ids_of(outputs)[2:4] == list(CLOSING)
    assert len(ids_of(outputs)) == 9
