"""How a worker ends turns of conversations."""

import pytest

from storage.contract import JobStatus
from storage.ids import suffix_of
from tests.fakes import FakeRunner, foretold, spec
from tests.workers.harness import Backend, Bench, running, wait_for_answer
from workers.generation.pipeline import job_outcome


def test_a_turn_adds_input_and_answer_with_their_ids(backend: Backend, bench: Bench) -> None:
    job_id = backend.put_turn(spec(5))

    assert wait_for_answer(bench.submit(job_id)) == "acknowledged"

    said, answered = backend.items()
    suffix = suffix_of(job_id)
    assert (said["id"], answered["id"]) == (f"msg_{suffix}i0", f"msg_{suffix}")
    part = {"type": "output_text", "text": foretold(5), "annotations": [], "logprobs": []}
    assert (answered["status"], answered["content"]) == ("completed", [part])


def test_a_turn_that_a_second_worker_goes_on_with_is_added_once(backend: Backend) -> None:
    job_id = backend.put_turn(spec(300))
    with running(backend, runner=FakeRunner(0.005)) as first:
        first.submit(job_id)
        backend.wait_for_tokens(job_id, 3)
    assert backend.items() == []

    with running(backend) as second:
        assert wait_for_answer(second.submit(job_id)) == "acknowledged"

    assert backend.row(job_id).attempt == 2
    assert len(backend.items()) == 2


def test_a_cancelled_turn_adds_nothing(backend: Backend) -> None:
    job_id = backend.put_turn(spec(2000))
    with running(backend, runner=FakeRunner(0.005)) as bench:
        ticket = bench.submit(job_id)
        backend.wait_for_tokens(job_id, 3)
        backend.cancel(job_id, bench.worker_id)
        assert wait_for_answer(ticket) == "acknowledged"

    assert backend.items() == []


def test_a_turn_whose_answer_cannot_be_folded_fails(
    backend: Backend, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no")

    monkeypatch.setattr(job_outcome, "turn_items", fail)
    job_id = backend.put_turn(spec(5))

    assert wait_for_answer(bench.submit(job_id)) == "acknowledged"

    assert backend.row(job_id).status is JobStatus.FAILED
    assert backend.items() == []
