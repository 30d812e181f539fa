"""Nobody waits for ever: who waited long enough goes first, and what that may cost the others."""

import math
from dataclasses import replace

import pytest

from tests.engine import invariants
from tests.engine.checked import LIMITS, TEXT, CheckedRunner, expected_output, request
from workers.engine.engine import Engine

AGING_AFTER_S = 20.0


class Ward:
    """An engine whose every step takes a second."""

    def __init__(self, *, aging_after_s: float = AGING_AFTER_S, max_running: int = 4, num_ahead: int = 0) -> None:
        changes = {"max_running": max_running, "max_batch_tokens": 60, "max_prefill_tokens": 60, "num_blocks": 400}
        limits = replace(LIMITS, aging_after_s=aging_after_s, **changes)  # type: ignore[arg-type]  # by name
        self.now = 0.0
        self.engine = Engine(CheckedRunner(limits, num_ahead), TEXT, limits, clock=lambda: self.now)
        self.num_added = 0

    def add(self, priority: int, max_tokens: int = 20) -> str:
        """The name of a new sequence."""
        self.num_added += 1
        name = f"s{self.num_added}"
        prompt = (2 + self.num_added % 30, 1, 1, 1)
        self.engine.add(request(name, prompt=prompt, priority=priority, max_tokens=max_tokens, ignore_eos=True))
        return name

    def step(self) -> dict[str, bool]:
        """Who had an output in one step, and whether it was its last."""
        self.now += 1.0
        outputs = self.engine.step()
        invariants.check(self.engine)
        return {output.sequence_id: output.is_last for output in outputs}

    def end_in_a_flood(self, name: str, max_steps: int) -> float:
        """When the sequence ended, while more urgent ones than can run keep coming; infinite for never."""
        for _ in range(max_steps):
            self.add(-10, max_tokens=4)
            self.add(-10, max_tokens=4)
            if self.step().get(name):
                return self.now
        return math.inf


@pytest.mark.parametrize("num_ahead", [0, 1])
def test_one_that_can_wait_ends_in_time_however_many_urgent_ones_come(num_ahead: int) -> None:
    ward = Ward(num_ahead=num_ahead)
    patient = ward.add(10, max_tokens=12)
    ward.step()

    ended_at = ward.end_in_a_flood(patient, max_steps=200)

    # It waits no longer than its patience, then runs on without a break: twelve tokens and a prompt in chunks.
    assert ended_at <= AGING_AFTER_S + 12 + 5


def test_without_a_bound_it_would_never_end() -> None:
    ward = Ward(aging_after_s=math.inf)
    patient = ward.add(10, max_tokens=12)
    ward.step()

    assert ward.end_in_a_flood(patient, max_steps=200) == math.inf


def test_waits_are_added_up_over_preemptions() -> None:
    ward = Ward(max_running=1)
    patient = ward.add(10, max_tokens=40)
    ward.step()
    # Three seconds each.
    for _ in range(7):
        ward.add(0, max_tokens=3)
        for _ in range(6):
            ward.step()

    num_before = ward.engine.stats().num_preemptions
    ward.add(-1000, max_tokens=3)
    names = [ward.step() for _ in range(5)]

    assert num_before >= 7
    assert ward.engine.stats().num_preemptions == num_before
    assert all(list(one) == [patient] for one in names)


def test_those_that_age_together_take_a_share_of_the_places_the_longest_waiting_first() -> None:
    ward = Ward(max_running=8)
    patient = [ward.add(10, max_tokens=40) for _ in range(8)]
    ward.step()
    urgent = [ward.add(0, max_tokens=40) for _ in range(8)]
    for _ in range(5):
        ward.step()
    assert set(ward.step()) == set(urgent)

    ward.now += AGING_AFTER_S
    ward.step()
    served = set(ward.step()) | set(ward.step())

    assert served & set(patient) == set(patient[:2])
    assert len(served & set(urgent)) == 6


def test_an_aged_sequence_preempts_none_that_came_before_it() -> None:
    ward = Ward(max_running=2)
    first = [ward.add(0, max_tokens=40) for _ in range(2)]
    ward.step()
    ward.add(0)
    ward.now += 2 * AGING_AFTER_S

    assert [set(ward.step()) for _ in range(4)] == [set(first)] * 4
    assert ward.engine.stats().num_preemptions == 0


def test_an_aged_sequence_does_not_block_urgent_ones() -> None:
    ward = Ward(max_running=2)
    for _ in range(2):
        ward.add(5, max_tokens=40)
    ward.step()
    aged = ward.add(10)
    ward.now += 2 * AGING_AFTER_S
    ward.step()
    urgent = ward.add(0)
    ward.step()

    # The urgent one may push out both; the slot that becomes free first goes to the aged one.
    assert set(ward.step()) == {aged, urgent}


def test_an_aged_sequence_generates_the_same_text() -> None:
    ward = Ward(max_running=2)
    requests = [
        request(f"x{number}", prompt=(3 + number, 1, 1, 1), priority=number % 3, max_tokens=30, ignore_eos=True)
        for number in range(8)
    ]
    for one in requests:
        ward.engine.add(one)
    outputs: dict[str, list[int]] = {one.sequence_id: [] for one in requests}
    while ward.engine.has_work:
        ward.now += 3.0
        for output in ward.engine.step():
            outputs[output.sequence_id] += output.token_ids

    assert outputs == {one.sequence_id: expected_output(one)[0] for one in requests}
