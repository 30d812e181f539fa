"""The encoding loop: which texts share a batch, who waits for whom, and what a fault costs."""

import random

import pytest

from storage.errors import ContextLengthExceeded, InvalidRequest
from tests.fakes import BREAKS_STEP, NOT_FINITE, FakeEncoder
from workers.engine.encoder_engine import EncoderEngine, EncoderLimits, EncodingRequest

LIMITS = EncoderLimits(max_len=64, vocab_size=1000, max_batch_tokens=100, aging_after_s=60.0)


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def text(job: str, number: int = 0, *, num_tokens: int = 10, mark: int = 50, priority: int = 0) -> EncodingRequest:
    return EncodingRequest(sequence_id=f"{job}:{number}", job=job, token_ids=(mark,) * num_tokens, priority=priority)


def steps(engine: EncoderEngine) -> list[list[str]]:
    """The ids of each step's outputs, until nothing waits."""
    found = []
    while engine.has_work:
        found.append([output.sequence_id for output in engine.step()])
    return found


def test_texts_of_many_jobs_share_a_step() -> None:
    runner = FakeEncoder()
    engine = EncoderEngine(runner, LIMITS)
    for number in range(8):
        engine.add(text(f"job{number}"))

    outputs = engine.step()

    assert len(runner.batches) == 1
    assert {output.sequence_id: output.vector for output in outputs} == {
        f"job{number}:0": runner.vector_of((50,) * 10) for number in range(8)
    }
    assert not engine.has_work


def test_a_step_holds_no_more_tokens_than_it_may() -> None:
    runner = FakeEncoder()
    engine = EncoderEngine(runner, LIMITS)
    for number in range(25):
        engine.add(text("job", number, num_tokens=30))

    assert [len(step) for step in steps(engine)] == [3] * 8 + [1]


def test_a_job_of_one_text_does_not_wait_for_a_job_of_a_thousand() -> None:
    engine = EncoderEngine(FakeEncoder(), LIMITS)
    for number in range(1000):
        engine.add(text("large", number))
    engine.step()

    engine.add(text("small"))

    assert "small:0" in {output.sequence_id for output in engine.step()}


def test_jobs_of_equal_size_share_the_steps() -> None:
    engine = EncoderEngine(FakeEncoder(), LIMITS)
    for job in ("first", "second"):
        for number in range(20):
            engine.add(text(job, number))

    [one, *_] = steps(engine)

    assert sum(sequence_id.startswith("second") for sequence_id in one) == 5


def test_a_lower_priority_waits_until_it_has_aged() -> None:
    clock = Clock()
    engine = EncoderEngine(FakeEncoder(), LIMITS, clock=clock)
    engine.add(text("patient", priority=10))
    for number in range(30):
        engine.add(text("urgent", number, priority=-10))

    first = [output.sequence_id for output in engine.step()]
    clock.now = 61.0
    second = [output.sequence_id for output in engine.step()]

    assert "patient:0" not in first
    assert second[0] == "patient:0"


def test_a_cancelled_text_is_not_computed() -> None:
    runner = FakeEncoder()
    engine = EncoderEngine(runner, LIMITS)
    for number in range(3):
        engine.add(text("job", number))

    engine.cancel("job:1")
    engine.cancel("unknown")

    assert steps(engine) == [["job:0", "job:2"]]


@pytest.mark.parametrize(
    ("mark", "code"), [(BREAKS_STEP, "engine_fault"), (NOT_FINITE, "numerical_error")], ids=["breaks", "not-finite"]
)
def test_a_fault_of_one_text_is_that_texts_alone(mark: int, code: str) -> None:
    engine = EncoderEngine(FakeEncoder(), LIMITS)
    for number in range(9):
        engine.add(text("job", number, mark=mark if number == 5 else 50))

    outputs = engine.step()

    failures = {output.sequence_id: output.failure.code for output in outputs if output.failure is not None}
    assert failures == {"job:5": code}
    assert sum(output.vector is not None for output in outputs) == 8


@pytest.mark.parametrize("token_ids", [(), (1000,), (-1,)])
def test_ids_that_the_model_lacks_are_refused(token_ids: tuple[int, ...]) -> None:
    engine = EncoderEngine(FakeEncoder(), LIMITS)

    with pytest.raises(InvalidRequest):
        engine.add(EncodingRequest(sequence_id="one", job="job", token_ids=token_ids))
    with pytest.raises(ContextLengthExceeded, match=r"65 tokens.*64"):
        engine.add(text("long", num_tokens=65))
    assert not engine.has_work


def test_every_text_gets_one_output_whatever_comes_between() -> None:
    chance = random.Random(7)
    engine = EncoderEngine(FakeEncoder(), LIMITS)
    waiting: dict[str, None] = {}
    expected: list[str] = []
    outputs: list[str] = []
    for number in range(2000):
        chosen = chance.random()
        if chosen < 0.6:
            one = text(
                f"job{chance.randrange(9)}", number, num_tokens=chance.randint(1, 64), priority=chance.randint(-1, 1)
            )
            engine.add(one)
            waiting[one.sequence_id] = None
        elif chosen < 0.8 and waiting:
            cancelled = chance.choice(list(waiting))
            del waiting[cancelled]
            engine.cancel(cancelled)
        else:
            outputs += [output.sequence_id for output in engine.step()]
            expected += [one for one in waiting if one in outputs]
            waiting = {one: None for one in waiting if one not in outputs}

    outputs += [sequence_id for step in steps(engine) for sequence_id in step]

    assert sorted(outputs) == sorted([*expected, *waiting])
    assert engine.stats().num_waiting == 0
