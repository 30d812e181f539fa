"""What fails, fails alone: sequences whose numbers are not finite, steps that break, memory that gives out."""

from tests.engine.checked import LIMITS, TEXT, CheckedRunner, expected_output, request, run, said, sequences
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
