"""Sequences with a grammar among others: what they say, where they end, and what becomes of a dead end."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from msgspec import structs

from storage.contract import FinishReason
from tests.engine import invariants
from tests.engine.checked import LIMITS, TEXT, expected_output, ids_of, request, run, text_of
from tests.engine.constrained import (
    GRAMMARS,
    ConstrainedRunner,
    bits_of,
    constrained,
    expected_ids,
    matcher,
)
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceOutput, SequenceRequest
from workers.text.stream import TextFactory

# No room for three whole sequences: they are preempted.
TIGHT = replace(LIMITS, num_blocks=16)


@pytest.fixture
def runner(request: pytest.FixtureRequest) -> ConstrainedRunner:
    return ConstrainedRunner()


@pytest.fixture(params=[0, 1], ids=["in step", "one ahead"])
def engine_of(request: pytest.FixtureRequest) -> Callable[..., Engine]:
    return lambda limits=LIMITS: Engine(ConstrainedRunner(limits, request.param), TEXT, limits)


def whole(engine: Engine, outputs: dict[str, list[SequenceOutput]]) -> dict[str, tuple[list[int], object]]:
    invariants.check(engine)
    assert engine._runner.broken == []  # type: ignore[attr-defined]  # a ConstrainedRunner
    return {name: (ids_of(got), got[-1].failure or got[-1].finish) for name, got in outputs.items()}


def mixed(seed: int, **changes: object) -> dict[str, tuple[str | None, SequenceRequest]]:
    """Constrained and free requests of different lengths by id, each with its grammar."""
    made: dict[str, tuple[str | None, SequenceRequest]] = {}
    for place in range(9):
        grammar = None if place % 3 == 2 else GRAMMARS[(place + seed) % len(GRAMMARS)]
        sampling = {"num_prompt": 2 + 3 * (place % 6), "seed": seed + place, **changes}
        name = f"s{place}"
        one = request(name, max_tokens=20, **sampling) if grammar is None else constrained(name, grammar, **sampling)  # type: ignore[arg-type]
        made[name] = grammar, one
    return made


def said_alone(grammar: str | None, one: SequenceRequest) -> tuple[list[int], FinishReason]:
    return expected_output(one) if grammar is None else expected_ids(grammar, one)


@pytest.mark.parametrize("limits", [LIMITS, TIGHT], ids=["with room", "preempted"])
@pytest.mark.parametrize(
    "sampling", [{}, {"logprobs": 2}, {"min_tokens": 9}, {"ignore_eos": True}, {"prompt_logprobs": 1}], ids=str
)
def test_every_sequence_says_what_its_grammar_allows_whatever_runs_beside_it(
    engine_of: Callable[..., Engine], limits: object, sampling: dict[str, object]
) -> None:
    for seed in range(6):
        requests = mixed(seed, **sampling)
        engine = engine_of(limits)

        outputs = run(engine, *[one for _, one in requests.values()])

        assert whole(engine, outputs) == {name: said_alone(*asked) for name, asked in requests.items()}


def test_forced_tokens_come_in_one_step_unless_log_probabilities_are_asked_for(runner: ConstrainedRunner) -> None:
    steps = {}
    for logprobs in (None, 0):
        engine = Engine(runner, TEXT, LIMITS)
        outputs = run(engine, constrained("s", 'start: "ABCDEFGH" /[ab]/ "XYZ"', logprobs=logprobs))["s"]
        assert text_of(outputs) in ("ABCDEFGHaXYZ", "ABCDEFGHbXYZ")
        steps[logprobs] = [len(output.token_ids) for output in outputs]

    # The first eight before anything was sampled, then a letter with three behind it, then the end.
    assert steps == {None: [8 + 1 + 3, 1], 0: [1] * 13}


def test_the_output_resumes_from_any_token(engine_of: Callable[..., Engine]) -> None:
    for seed, grammar in enumerate(GRAMMARS):
        undisturbed = constrained("s", grammar, seed=seed)
        ids, finish = expected_ids(grammar, undisturbed)
        text = text_of(run(engine_of(), undisturbed)["s"])
        for place in range(len(ids)):
            engine = engine_of()

            outputs = run(engine, constrained("s", grammar, seed=seed, emitted=tuple(ids[:place])))

            assert whole(engine, outputs) == {"s": (ids[place:], finish)}
            assert TEXT._decode(ids[:place]) + text_of(outputs["s"]) == text


def test_choices_of_one_prompt_share_its_blocks_and_forced_tokens(engine_of: Callable[..., Engine]) -> None:
    grammar = GRAMMARS[0]
    choices = [constrained(f"s{seed}", grammar, num_prompt=14, seed=seed) for seed in range(8)]
    engine = engine_of()

    outputs = run(engine, *choices)

    assert whole(engine, outputs) == {one.sequence_id: expected_ids(grammar, one) for one in choices}
    assert engine.stats().num_cached_tokens > 0


def test_a_step_that_fails_changes_nothing(runner: ConstrainedRunner) -> None:
    expected = {name: said_alone(*asked) for name, asked in mixed(3).items()}
    for num_steps in range(7):
        requests = mixed(3)
        engine = Engine(runner, TEXT, LIMITS)
        outputs: dict[str, list[SequenceOutput]] = {}
        for _, one in requests.values():
            engine.add(one)
        for _ in range(num_steps):
            for output in engine.step():
                outputs.setdefault(output.sequence_id, []).append(output)
        runner.num_faults = 1
        for name, got in run(engine).items():
            outputs.setdefault(name, []).extend(got)

        assert whole(engine, outputs) == expected


def test_a_cancelled_sequence_leaves_the_others_alone(runner: ConstrainedRunner) -> None:
    requests = mixed(5)
    engine = Engine(runner, TEXT, LIMITS)
    for _, one in requests.values():
        engine.add(one)
    early = [output for _ in range(3) for output in engine.step()]
    engine.cancel("s0")

    outputs = run(engine)
    for output in reversed(early):
        outputs.setdefault(output.sequence_id, []).insert(0, output)

    got = whole(engine, outputs)
    assert {name: got[name] for name in requests if name != "s0"} == {
        name: said_alone(*asked) for name, asked in requests.items() if name != "s0"
    }


def test_min_tokens_and_ignore_eos_yield_where_nothing_but_the_end_is_left(engine_of: Callable[..., Engine]) -> None:
    for sampling in ({"min_tokens": 15}, {"ignore_eos": True}):
        outputs = run(engine_of(), constrained("s", 'start: "AB" /[c-e]{0,3}/ "D"', **sampling))["s"]

        # Three letters, for the end may not be sampled as long as one more is allowed.
        assert len(text_of(outputs)) == 6
        assert outputs[-1].finish is FinishReason.STOP


def test_a_stop_token_ends_only_where_the_grammar_accepts_an_end(engine_of: Callable[..., Engine]) -> None:
    b, c = 2, 3
    # Inside it is a letter like others; after the last one it is what ends the output, though the grammar knows no C.
    inside = run(engine_of(), constrained("s", 'start: "ABBA"', stop_token_ids=(b,)))["s"]
    ends = {
        ids_of(run(engine_of(), constrained("s", 'start: "ABBA"', seed=seed, stop_token_ids=(c, 10**6, -1)))["s"])[-1]
        for seed in range(12)
    }

    assert text_of(inside) == "ABBA"
    assert inside[-1].finish is FinishReason.STOP
    assert ends == {0, c}
    held = run(engine_of(), constrained("s", 'start: "A" /[D-F]*/', max_tokens=8, min_tokens=8, stop_token_ids=(c,)))[
        "s"
    ]
    assert c not in ids_of(held)
    assert held[-1].finish is FinishReason.LENGTH


def test_stop_strings_end_an_output_early(engine_of: Callable[..., Engine]) -> None:
    outputs = run(engine_of(), constrained("s", 'start: "ABCDEFGH" /[a-d]*/', stop=("DE",)))["s"]

    assert text_of(outputs) == "ABC"
    assert ids_of(outputs) == [1, 2, 3, 4, 5]
    assert outputs[-1].finish is FinishReason.STOP


@pytest.mark.parametrize("max_tokens", [0, 1, 3, 4, 5])
def test_forced_tokens_count_toward_the_limit(engine_of: Callable[..., Engine], max_tokens: int) -> None:
    outputs = run(engine_of(), constrained("s", 'start: "ABCD" /[a-d]+/', max_tokens=max_tokens))["s"]

    assert len(ids_of(outputs)) == max_tokens
    assert outputs[-1].finish is FinishReason.LENGTH
    assert len(outputs) == 1


def test_a_grammar_that_leaves_no_token_fails_its_sequence_alone(engine_of: Callable[..., Engine]) -> None:
    # A letter that no token writes is all that may follow.
    grammar = 'start: "AB" /[c-e]/ "~"'
    requests = mixed(1)
    engine = engine_of()

    outputs = run(engine, *[one for _, one in requests.values()], constrained("dead", grammar))

    failure = outputs.pop("dead")[-1].failure
    assert failure is not None
    assert failure.code == "grammar_dead_end"
    assert whole(engine, outputs) == {name: said_alone(*asked) for name, asked in requests.items()}
    assert engine.stats().num_blocks_used == 0


def test_emitted_ids_that_the_grammar_does_not_allow_are_a_dead_end(engine_of: Callable[..., Engine]) -> None:
    (output,) = run(engine_of(), constrained("s", 'start: "ABCD"', emitted=(1, 7)))["s"]

    assert output.failure is not None
    assert output.failure.code == "grammar_dead_end"


def test_logits_that_are_not_finite_are_no_dead_end(runner: ConstrainedRunner) -> None:
    runner.not_finite.add("s")

    (output,) = run(Engine(runner, TEXT, LIMITS), constrained("s", GRAMMARS[0], logprobs=0))["s"]

    assert output.failure is not None
    assert output.failure.code == "numerical_error"


def test_a_fault_in_the_text_of_forced_tokens_fails_that_sequence_alone(runner: ConstrainedRunner) -> None:
    def decode(ids: list[int]) -> str:
        if 25 in ids:
            raise ValueError("no such letter")
        return TEXT._decode(ids)

    engine = Engine(runner, TextFactory(decode, range(1, 40)), LIMITS)

    outputs = run(engine, constrained("bad", 'start: "AB" /[c-e]/ "YZ"'), constrained("good", 'start: "ABC"'))

    assert outputs["bad"][-1].failure is not None
    assert text_of(outputs["good"]) == "ABC"


class Panics:
    """A matcher whose Rust code panics at one of its calls."""

    def __init__(self, call: str) -> None:
        self._call = call
        self._matcher = matcher(GRAMMARS[0])

    def __getattr__(self, name: str) -> object:
        if name == self._call:
            raise type("PanicException", (BaseException,), {})("index out of bounds")
        return getattr(self._matcher, name)


@pytest.mark.parametrize("call", ["consume_token", "compute_ff_tokens", "unsafe_compute_mask_ptr", "is_error"])
def test_a_panic_of_a_matcher_fails_its_sequence_alone(engine_of: Callable[..., Engine], call: str) -> None:
    requests = mixed(2)
    engine = engine_of()
    bad = structs.replace(requests["s0"][1], sequence_id="bad", matcher=Panics(call))

    outputs = run(engine, *[one for _, one in requests.values()], bad)

    failure = outputs.pop("bad")[-1].failure
    assert failure is not None
    assert failure.code == "grammar_dead_end"
    assert whole(engine, outputs) == {name: said_alone(*asked) for name, asked in requests.items()}


def test_a_matcher_in_error_would_allow_the_end() -> None:
    # Why `Constraint` clears such a mask.
    broken = matcher(GRAMMARS[0])
    broken.consume_token(7)

    assert broken.is_error()
    assert bits_of(broken.compute_bitmask()) == [0]
