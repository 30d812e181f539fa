"""Batches that run: windows, and the ends of lines."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlalchemy import Connection, event, func, select

from api.protocol.checking.checker import Checker, CheckerFailed
from api.protocol.checking.verdicts import Verdict
from api.protocol.structured.constraints import Constraint
from storage.batches import batch_rows
from storage.batches.batch_states import BatchStatus, LineStatus
from storage.batches.tables import Batch, BatchLine
from storage.contract import JobStatus, PriorityQueue
from storage.database.table_definitions import table_of
from storage.derived import queue_counts
from storage.errors import UploadInterrupted
from storage.files.tables import FileChunk
from storage.fleet import workers
from storage.jobs import jobs
from storage.jobs.tables import Job
from tests.workers.batches.workshop import Workshop, body, line
from workers.batches import batch_runner, line_jobs, served_models
from workers.batches.line_jobs import LineJobs


def _lines(number: int) -> bytes:
    return b"\n".join(line(f"id-{index}") for index in range(number))


def test_every_line_is_answered_once(workshop: Workshop) -> None:
    batch_id = workshop.create(_lines(5))

    workshop.finish_all()

    batch, (output, errors) = workshop.batch(batch_id), workshop.results(batch_id)
    assert batch.status is BatchStatus.COMPLETED
    assert None not in (batch.in_progress_at, batch.finalizing_at, batch.completed_at)
    assert (output.keys(), errors) == ({f"id-{index}" for index in range(5)}, {})
    assert batch.error_file_id is None
    answer = output["id-3"]["response"]
    assert isinstance(answer, dict)
    assert answer["status_code"] == 200
    assert answer["body"]["object"] == "chat.completion"
    assert answer["body"]["choices"][0]["message"]["content"] == "Hi\u2028"
    assert output["id-3"]["error"] is None
    assert batch.usage == {"input_tokens": 15, "cached_tokens": 0, "output_tokens": 5, "reasoning_tokens": 0}


def test_a_request_that_the_api_would_refuse_has_its_400(workshop: Workshop) -> None:
    bad = {
        "stream": body(stream=True),
        "background": body(background=True),
        "unknown": body(foo=1),
        "long": body(max_tokens=100_000),
        "urgent": body(service_tier="priority"),
        "hook": body(webhook={"url": "https://a.example"}),
        "no model": {"messages": []},
        "grammar": body(structured_outputs={"regex": "("}),
        "many": body(logit_bias={str(number): 1 for number in range(400)}, n=99),
    }
    content = [line("good"), *(line(name, one) for name, one in bad.items())]
    batch_id = workshop.create(b"\n".join(content))

    workshop.finish_all()

    output, errors = workshop.results(batch_id)
    assert workshop.batch(batch_id).status is BatchStatus.COMPLETED
    assert (output.keys(), errors.keys()) == ({"good"}, bad.keys())
    for name, one in errors.items():
        response = one["response"]
        assert isinstance(response, dict)
        assert (response["status_code"], one["error"]) == (400, None), name
        assert response["body"]["error"]["type"] == "invalid_request_error"
    assert len(workshop.tickets.sent) == 1


def test_a_schema_is_judged_and_holds(workshop: Workshop) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    asked = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    batch_id = workshop.create(line("a", body(response_format=asked)))

    workshop.run()

    with workshop.database.connect() as c:
        output = jobs.get_spec(c, workshop.lines(batch_id)[0].job_id or "").output
    assert output is not None
    assert output.grammar is not None


def test_a_checker_that_is_stopped_with_its_service_fails_no_line(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, ends = Checker.ask, ["the checker process ended with -15"]

    async def end_once(self: Checker, constraints: Sequence[Constraint]) -> list[Verdict]:
        if ends:
            raise CheckerFailed(ends.pop())
        return await ask(self, constraints)

    monkeypatch.setattr(Checker, "ask", end_once)
    batch_id = workshop.create(line("a", body(structured_outputs={"regex": "[ab]"})))

    workshop.finish_all()

    assert ends == []
    assert workshop.results(batch_id)[0].keys() == {"a"}


def test_all_failed_is_completed_without_output(workshop: Workshop) -> None:
    batch_id = workshop.create(_lines(2))
    workshop.run()
    for _ in range(2):
        workshop.fail(workshop.claim())
    workshop.run()

    output, errors = workshop.results(batch_id)
    assert workshop.batch(batch_id).status is BatchStatus.COMPLETED
    assert workshop.batch(batch_id).output_file_id is None
    assert output == {}
    assert errors["id-0"]["response"] is None
    assert errors["id-0"]["error"] == {"code": "server_error", "message": "The logits were not finite."}


def test_a_batch_never_fills_the_queue(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_models, "_MIN_LINES", 4)
    monkeypatch.setattr(served_models, "_LINES_PER_PLACE", 1)
    first, second = workshop.create(_lines(20)), workshop.create(_lines(20))

    workshop.run()

    assert [workshop.counts(one)[LineStatus.IN_PROGRESS] for one in (first, second)] == [4, 0] or [
        workshop.counts(one).get(LineStatus.IN_PROGRESS, 0) for one in (first, second)
    ] == [2, 2]
    assert set(workshop.tickets.priority_queues) == {PriorityQueue.BACK}
    for _ in range(3):
        workshop.complete(workshop.claim())
    workshop.run()
    num_open = sum(workshop.counts(one).get(LineStatus.IN_PROGRESS, 0) for one in (first, second))
    assert num_open == 4


def test_many_batches_of_one_owner_hold_up_no_other_owner(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_models, "_MIN_LINES", 4)
    monkeypatch.setattr(served_models, "_LINES_PER_PLACE", 1)
    many = [workshop.create(_lines(5)) for _ in range(9)]
    workshop.run()
    late = workshop.create(_lines(5), owner="bob")

    for _ in range(6):
        workshop.run()
        workshop.complete(workshop.claim())

    assert workshop.counts(late)[LineStatus.QUEUED] <= 2
    assert sum(workshop.counts(one).get(LineStatus.COMPLETED, 0) for one in many) > 0


def test_a_batch_that_fails_at_each_step_holds_up_no_other(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, sound = workshop.create(_lines(2)), workshop.create(_lines(2))
    submit = LineJobs.submit

    def break_down(self: LineJobs, batch: Batch, lines: Sequence[BatchLine]) -> int:
        if batch.id == broken:
            raise UploadInterrupted("gone")
        return submit(self, batch, lines)

    monkeypatch.setattr(LineJobs, "submit", break_down)
    workshop.run()

    assert workshop.counts(broken) == {LineStatus.QUEUED: 2}
    assert workshop.counts(sound) == {LineStatus.IN_PROGRESS: 2}


def test_lines_whose_content_is_gone_fail_and_hold_up_no_others(workshop: Workshop) -> None:
    batch_id = workshop.create(_lines(2))
    workshop.run(until=lambda: workshop.batch(batch_id).in_progress_at is not None)
    with workshop.database.begin() as c:
        c.execute(
            table_of(FileChunk).delete().where(table_of(FileChunk).c.file_id == workshop.batch(batch_id).input_file_id)
        )

    sound = workshop.create(_lines(2))
    workshop.finish_all()

    assert {one["error"]["code"] for one in workshop.results(batch_id)[1].values()} == {"server_error"}  # type: ignore[index]
    assert len(workshop.results(sound)[0]) == 2


def test_steps_of_many_batches_leave_time_for_others(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_runner, "_STEPS_S", 0.0)
    many = [workshop.create(_lines(1)) for _ in range(3)]
    late = workshop.create(_lines(1), owner="bob")

    for _ in range(2):
        workshop.runner.run_once()

    assert workshop.batch(late).in_progress_at is not None
    workshop.run(until=lambda: all(workshop.counts(one).get(LineStatus.IN_PROGRESS) for one in (*many, late)))


def test_lines_do_not_count_as_their_owners_waiting_jobs(workshop: Workshop) -> None:
    workshop.create(_lines(5))

    workshop.run()

    with workshop.database.connect() as c:
        waiting = queue_counts.count_waiting(c)
    assert {(one.owner, one.num_jobs) for one in waiting} == {("", 5)}
    workshop.finish_all()
    with workshop.database.connect() as c:
        assert queue_counts.count_waiting(c) == []


def test_a_model_without_a_worker_holds_up_no_other_model(workshop: Workshop) -> None:
    workshop.serve("idle")
    with workshop.database.begin() as c:
        workers.mark_dead(c, "wrk_1idle")
    content = [line("a", body(model="idle")), line("b"), line("c", body(model="idle"))]
    batch_id = workshop.create(b"\n".join(content))

    workshop.run()

    assert {one.custom_id: one.status for one in workshop.lines(batch_id)} == {
        "a": LineStatus.QUEUED,
        "b": LineStatus.IN_PROGRESS,
        "c": LineStatus.QUEUED,
    }


def test_large_lines_are_read_a_few_at_a_time(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_jobs, "_MAX_BYTES", 300)
    batch_id = workshop.create(_lines(7))

    workshop.finish_all()

    assert len(workshop.results(batch_id)[0]) == 7


def test_many_lines_become_jobs_a_few_at_a_time(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_jobs, "_MAX_LINES", 2)
    batch_id = workshop.create(_lines(5))
    workshop.run(until=lambda: bool(workshop.tickets.sent))

    assert len(workshop.tickets.sent) == 2
    workshop.finish_all()
    assert len(workshop.results(batch_id)[0]) == 5


def test_slow_lines_are_prepared_a_few_at_a_time(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_jobs, "_MAX_S", 0.0)
    batch_id = workshop.create(_lines(5))
    workshop.run(until=lambda: bool(workshop.tickets.sent))

    assert len(workshop.tickets.sent) == 1
    workshop.finish_all()
    assert len(workshop.results(batch_id)[0]) == 5


def test_cancelling_keeps_what_was_done_and_lets_running_lines_end(workshop: Workshop) -> None:
    batch_id = workshop.create(_lines(4))
    workshop.run()
    workshop.complete(workshop.claim())
    running = workshop.claim()
    with workshop.database.begin() as c:
        assert batch_rows.cancel(c, batch_id, "alice", workshop.now).status is BatchStatus.CANCELLING
        assert batch_rows.cancel(c, batch_id, "alice", workshop.now).status is BatchStatus.CANCELLING

    workshop.run()

    assert workshop.batch(batch_id).status is BatchStatus.CANCELLING
    workshop.complete(running)
    workshop.run()
    output, errors = workshop.results(batch_id)
    assert workshop.batch(batch_id).status is BatchStatus.CANCELLED
    assert (len(output), len(errors)) == (2, 2)
    assert {one["error"]["code"] for one in errors.values()} == {"batch_cancelled"}  # type: ignore[index]


def test_lines_that_run_on_too_long_are_cancelled_with_their_batch(workshop: Workshop) -> None:
    batch_id = workshop.create(_lines(1))
    workshop.run()
    workshop.claim()
    with workshop.database.begin() as c:
        batch_rows.cancel(c, batch_id, "alice", workshop.now)
    workshop.run()

    workshop.now += timedelta(minutes=10)
    workshop.run()
    workshop.run()

    assert workshop.batch(batch_id).status is BatchStatus.CANCELLED
    assert workshop.counts(batch_id) == {LineStatus.CANCELLED: 1}


def test_a_batch_that_is_cancelled_before_it_began_has_no_lines(workshop: Workshop) -> None:
    batch_id = workshop.create(_lines(1))
    with workshop.database.begin() as c:
        batch_rows.cancel(c, batch_id, "alice", workshop.now)

    workshop.run()

    assert workshop.batch(batch_id).status is BatchStatus.CANCELLED
    assert (workshop.lines(batch_id), workshop.results(batch_id)) == ([], ({}, {}))


def test_what_was_done_before_the_window_ended_stays(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_models, "_MIN_LINES", 2)
    monkeypatch.setattr(served_models, "_LINES_PER_PLACE", 0)
    batch_id = workshop.create(_lines(5))
    workshop.run()
    workshop.complete(workshop.claim())
    running = workshop.claim()

    workshop.now += timedelta(hours=25)
    workshop.run()
    assert workshop.batch(batch_id).status is BatchStatus.IN_PROGRESS
    workshop.complete(running, JobStatus.INCOMPLETE)
    workshop.run()

    output, errors = workshop.results(batch_id)
    assert workshop.batch(batch_id).status is BatchStatus.EXPIRED
    assert (len(output), len(errors)) == (2, 3)
    assert {one["error"]["code"] for one in errors.values()} == {"batch_expired"}  # type: ignore[index]


def test_lines_whose_jobs_end_by_themselves_are_reported(workshop: Workshop) -> None:
    batch_id = workshop.create(_lines(3))
    workshop.run()
    cancelled, erased, done = (workshop.lines(batch_id)[index].job_id or "" for index in range(3))
    with workshop.database.begin() as c:
        jobs.cancel(c, cancelled, workshop.now)
        jobs.erase(c, erased, "alice")
        jobs.claim(c, done, "w", workshop.now)
    workshop.complete(done)

    workshop.run()

    output, errors = workshop.results(batch_id)
    assert output.keys() == {"id-2"}
    assert {one["error"]["code"] for one in errors.values()} == {"batch_request_cancelled"}  # type: ignore[index]


def test_one_line_never_becomes_two_jobs(workshop: Workshop) -> None:
    batch_id = workshop.create(_lines(3))
    workshop.run()
    batch, lines = workshop.batch(batch_id), workshop.lines(batch_id)

    workshop.runner._line_jobs.submit(batch, lines)

    with workshop.database.connect() as c:
        assert c.execute(select(func.count()).select_from(table_of(Job))).scalar() == 3
    assert len(workshop.tickets.sent) == 3


def test_the_end_of_a_job_without_a_batch_costs_no_further_statement(workshop: Workshop) -> None:
    statements: list[str] = []
    batch_id = workshop.create(_lines(1))
    workshop.run()
    job_id = workshop.claim()
    with workshop.database.begin() as c:
        c.execute(table_of(Job).update().where(table_of(Job).c.id == job_id).values(batch_id=None))

    def note(c: Connection, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    with workshop.database.begin() as c:
        event.listen(c, "before_cursor_execute", note)
        jobs.cancel(c, job_id, workshop.now)

    assert not [one for one in statements if "batch_line" in one]
    assert workshop.counts(batch_id) == {LineStatus.IN_PROGRESS: 1}
