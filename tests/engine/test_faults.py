"""What fails, fails alone: sequences whose numbers are not finite, steps that break, memory that gives out."""

import itertools

from tests.engine import invariants
from tests.engine.checked import (
    LIMITS,
    POISON,
    TEXT,
    CheckedRunner,
    expected_output,
    ids_of,
    request,
    run,
    said,
    sequences,
)
from workers.engine.engine import Engine
from workers.text.stream import TextFactory


def test_logits_that_are_not_finite_fail_one_sequence_alone(engine: Engine, runner: CheckedRunner) -> None:
    undisturbed = said(run(engine, *sequences(4)))
    runner.not_finite.add("s2")

    outputs = run(engine, *sequences(4))

    failure = outputs.pop("s2")[-1].failure
    assert failure is not None
    assert failure.code == "numerical_error"
    assert said(outputs) == {name: undisturbed[name] for name in outputs}
    assert engine.stats().num_blocks_used == 0


def test_a_step_that_fails_once_is_forgotten(engine: Engine, runner: CheckedRunner) -> None:
    undisturbed = said(run(engine, *sequences(6)))
    for num_steps in range(8):
        for one in sequences(6):
            engine.add(one)
        outputs = said({"": [output for _ in range(num_steps) for output in engine.step()]})[""]
        runner.num_faults = 1
        rest = said(run(engine))

        for name, expected in undisturbed.items():
            assert [one for one in outputs if one.sequence_id == name] + rest.get(name, []) == expected


def test_a_sequence_that_breaks_every_step_fails_alone(engine: Engine, runner: CheckedRunner) -> None:
    undisturbed = said(run(engine, *sequences(6)))
    runner.breaking |= {"s1", "s4"}

    outputs = run(engine, *sequences(6))

    for name in ("s1", "s4"):
        (last,) = outputs.pop(name)
        assert last.failure is not None
        assert last.failure.code == "engine_fault"
    assert said(outputs) == {name: undisturbed[name] for name in outputs}


def test_steps_that_fail_for_ever_end_every_sequence(engine: Engine, runner: CheckedRunner) -> None:
    runner.num_faults = 1000

    outputs = run(engine, *sequences(6))

    assert {name: len(got) for name, got in outputs.items()} == {f"s{i}": 1 for i in range(6)}
    assert all(got[0].failure is not None for got in outputs.values())


def test_an_error_in_the_text_of_one_sequence_fails_it_alone(runner: CheckedRunner) -> None:
    def decode(ids: list[int]) -> str:
        if 38 in ids:
            raise ValueError("no such letter")
        return TEXT._decode(ids)

    requests = [request(f"s{i}", seed=i, max_tokens=20) for i in range(12)]
    engine = Engine(runner, TextFactory(decode, range(1, 40)), LIMITS)

    outputs = run(engine, *requests)

    failed = {name for name, got in outputs.items() if got[-1].failure is not None}
    assert failed == {one.sequence_id for one in requests if 38 in expected_output(one)[0]} != set()


def test_what_is_not_finite_is_cleared_before_anybody_else_gets_its_blocks(
    engine: Engine, runner: CheckedRunner
) -> None:
    run(engine, request("bad", prompt=(1, 1, 1, 1, POISON, 1, 1, 1, 1, 1)))

    run(engine, request("next"))

    assert not any(POISON in block for block in runner.memory)


def test_a_prompt_that_is_cancelled_in_its_prefill_leaves_nothing_allocated(
    engine: Engine, runner: CheckedRunner
) -> None:
    engine.add(request("bad", prompt=(POISON, *(1,) * 20)))
    engine.step()
    engine.cancel("bad")

    run(engine, request("next"))

    assert not any(POISON in block for block in runner.memory)


def test_a_prefix_shared_with_one_that_is_not_finite_is_still_good(engine: Engine) -> None:
    prefix = (1, 2, 1, 2, 1, 2, 1, 2)
    bad = request("bad", prompt=(*prefix, POISON, 1))
    good = [request(f"g{i}", prompt=(*prefix, 3 + i), max_tokens=12) for i in range(3)]

    outputs = run(engine, good[0], bad, *good[1:])

    assert outputs.pop("bad")[-1].failure is not None
    assert {name: ids_of(got) for name, got in outputs.items()} == {
        one.sequence_id: expected_output(one)[0] for one in good
    }


def test_a_step_that_runs_out_of_memory_is_computed_again_in_halves(engine: Engine, runner: CheckedRunner) -> None:
    undisturbed = said(run(engine, *sequences(6)))
    runner.num_memory_faults = 1000
    runner.max_step_tokens = 3
    before = len(runner.sizes)

    outputs = said(run(engine, *sequences(6)))

    assert outputs == undisturbed
    # Only a step of others, after those of the first have ended, is a whole one again, and is halved in turn.
    failed = [index for index, size in enumerate(runner.sizes) if index >= before and size > 3]
    assert failed[0] == before
    assert len(failed) == engine.stats().num_step_faults
    assert all(second - first > 8 for first, second in itertools.pairwise(failed))


def test_steps_are_whole_again_when_those_that_ran_out_of_memory_have_ended(
    engine: Engine, runner: CheckedRunner
) -> None:
    runner.num_memory_faults = 1
    run(engine, request("s", num_prompt=7))
    before = len(runner.sizes)

    run(engine, request("t", prompt=(2,) * 7))

    assert runner.sizes[before] == 7


def test_one_that_never_fits_into_memory_fails_alone(engine: Engine, runner: CheckedRunner) -> None:
    undisturbed = said(run(engine, *sequences(6)))
    runner.hungry = {"s2"}

    outputs = run(engine, *sequences(6))

    (last,) = outputs.pop("s2")
    assert last.failure is not None
    assert last.failure.code == "engine_fault"
    assert said(outputs) == {name: undisturbed[name] for name in outputs}


def test_after_a_failed_step_nothing_is_found_in_the_cache(engine: Engine, runner: CheckedRunner) -> None:
    run(engine, request("before", num_prompt=20))
    runner.num_failed_outputs = 1

    outputs = run(engine, request("broken", num_prompt=9))

    assert outputs["broken"][0].num_cached == 0
    assert runner.num_resets == 1
    invariants.check(engine)
