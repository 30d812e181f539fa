"""Ending jobs: one place, and one transaction, for status, result, attempt, webhook event and the items of a turn.

Every call that ends jobs builds its UPDATE with `ending`, which says which jobs end, and executes it with `end`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Update, bindparam, case, func, insert, null, update
from sqlalchemy.sql.elements import ColumnElement

from storage.batches import line_outcomes
from storage.contract import Failure, JobStatus, Result, Usage
from storage.conversations import conversation_items
from storage.conversations.conversation_items import NewItem
from storage.database.columns import SecondsAfter, UtcDateTime
from storage.database.table_definitions import table_of
from storage.fleet.manifests import upsert
from storage.formats import encode_result, result_format
from storage.jobs import attempts
from storage.jobs.records import JobState, states_of_rows
from storage.jobs.tables import Job, JobResult
from storage.jobs.transitions import sources_of
from storage.webhooks import events
from storage.webhooks.events import EndedJob

_job = table_of(Job)
_result = table_of(JobResult)

_INSERT_RESULT = insert(_result)
_REPORTED = (_job.c.status, _job.c.kind, _job.c.owner, _job.c.webhook)
_TURN = (_job.c.conversation_id, _job.c.conversation_position)
_ADDS_ITEMS = (JobStatus.COMPLETED, JobStatus.INCOMPLETE)
_MOMENT = bindparam("moment", type_=UtcDateTime)
# The results of a batch are made of its jobs, which are kept until its files are written.
_ERASE_AT = case((_job.c.batch_id.is_(None), SecondsAfter(_MOMENT, _job.c.retention_s)), else_=null())
IS_SUBSCRIBED = events.is_subscribed(owner="job.owner", target="job.webhook")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job that ends.

    result:         None where it is not known yet; whoever ran the job, or the sweeper, stores it by `settle`
    first_token_at: when the attempt that ends emitted its first token
    turn:           the items that a completed or incomplete job adds to its conversation; None for jobs without one
    """

    failure: Failure | None = None
    result: Result | None = None
    usage: Usage | None = None
    first_token_at: datetime | None = None
    turn: Sequence[NewItem] | None = None


def ending(status: JobStatus, *conditions: ColumnElement[bool]) -> Update:
    """The UPDATE that gives `status` to the jobs which meet the conditions and may enter it.

    Build it once where it is hot: SQLAlchemy takes five times as long to build a statement as SQLite to run it.
    """
    return (
        update(_job)
        .where(_job.c.status.in_(sources_of(status)), *conditions)
        .values(_OUTCOME | {"status": status, "ended_at": _MOMENT, "erase_at": _ERASE_AT})
        .returning(*attempts.COLUMNS, *_REPORTED, _job.c.batch_id, *_TURN, IS_SUBSCRIBED)
    )


def end(
    c: Connection,
    statement: Update,
    outcome: Outcome,
    now: datetime,
    parameters: dict[str, object] | None = None,
    *,
    reason: str | None = None,
) -> list[JobState]:
    """The jobs that `statement` ended, with all that an end writes, keyed by the job's id.

    statement:  as `ending` returns it
    parameters: those of its conditions
    reason:     outcome of the ended attempts, where neither status nor failure says it
    """
    rows = c.execute(statement, _parameters(outcome) | {"moment": now} | (parameters or {})).all()
    if not rows:
        return []
    _insert_results(c, rows, outcome)
    failure = outcome.failure
    attempts.insert_ended(
        c, rows, reason or (rows[0].status if failure is None else failure.code), now, outcome.first_token_at
    )
    batch_by_job = {row.id: row.batch_id for row in rows if row.batch_id is not None}
    if batch_by_job:
        line_outcomes.note_ended(c, batch_by_job, rows[0].status, outcome.failure)
    for row in rows:
        if row.conversation_id is not None and row.status in _ADDS_ITEMS:
            assert outcome.turn is not None, "a turn ends with its items"
            conversation_items.add_turn(c, row.conversation_id, row.conversation_position, outcome.turn)
        # The end of a batch has one event for all of its lines.
        if row.is_subscribed and row.batch_id is None:
            events.emit(
                c, EndedJob(job_id=row.id, owner=row.owner, kind=row.kind, status=row.status, target=row.webhook), now
            )
    # A usage row and the settlement of a budget belong here.
    return states_of_rows(rows)


def settle(c: Connection, statement: Update, parameters: dict[str, object], outcome: Outcome) -> bool:
    """Whether `statement` found a job that had ended without its result; that is stored now.

    statement: an UPDATE of one job as `settling` returns it; it may find the same job again
    """
    row = c.execute(statement, _parameters(outcome) | parameters).first()
    if row is None:
        return False
    if outcome.result is not None:
        values = _result_values(row.id, outcome)
        inserting = upsert(c, _result).values(values)
        changed = {name: values[name] for name in ("result_kind", "result_version", "result")}
        c.execute(inserting.on_conflict_do_update(index_elements=["job_id"], set_=changed))
    return True


def settling(*conditions: ColumnElement[bool], **values: object) -> Update:
    """The UPDATE that stores the outcome of one ended job which meets the conditions."""
    return update(_job).where(*conditions).values(_OUTCOME | values).returning(_job.c.id)


_OUTCOME: dict[str, object] = {
    **{name: bindparam(f"outcome_{name}") for name in ("has_result", *Usage.__struct_fields__)},
    "first_token_at": func.coalesce(bindparam("outcome_first_token_at", type_=UtcDateTime), _job.c.first_token_at),
}


def _parameters(outcome: Outcome) -> dict[str, object]:
    usage = outcome.usage
    return {
        "outcome_has_result": outcome.result is not None,
        "outcome_prompt_tokens": None if usage is None else usage.prompt_tokens,
        "outcome_completion_tokens": None if usage is None else usage.completion_tokens,
        "outcome_cached_tokens": None if usage is None else usage.cached_tokens,
        "outcome_reasoning_tokens": None if usage is None else usage.reasoning_tokens,
        "outcome_first_token_at": outcome.first_token_at,
    }


def _insert_results(c: Connection, rows: Sequence[Row[*tuple[Any, ...]]], outcome: Outcome) -> None:
    if outcome.result is not None or outcome.failure is not None:
        c.execute(_INSERT_RESULT, [_result_values(row.id, outcome) for row in rows])


def _result_values(job_id: str, outcome: Outcome) -> dict[str, object]:
    result_kind, result_version = result_format(outcome.result)
    return {
        "job_id": job_id,
        "result_kind": result_kind,
        "result_version": result_version,
        "failure": None if outcome.failure is None else msgspec.to_builtins(outcome.failure),
        "result": None if outcome.result is None else encode_result(outcome.result),
    }
