"""Lines become jobs: a few at a time are read, prepared and inserted together, then their tickets are sent."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial

import msgspec
import structlog
from sqlalchemy import Connection

from api.protocol.checking.checker import CheckerFailed
from api.protocol.checking.constraint_checks import ConstraintChecks
from api.protocol.structured.constraints import Constraint, Judged
from api.protocol.structured.format_fields import constraints_of
from storage.batches import batch_lines, batch_rows
from storage.batches.tables import Batch, BatchLine
from storage.database.bulk_insert import insert_rows
from storage.errors import FileNotFound, InvalidRequest, ModelNotFound, PlatformError, StorageUnavailable
from storage.jobs import jobs
from storage.jobs.records import NewJob
from workers.batches.batch_services import BatchServices
from workers.batches.content_reader import ContentReader
from workers.batches.line_request import LineRefusal, job_of_line, parse_line, prepare_line, refusal_of
from workers.batches.served_models import BatchModels

# Of the lines that are in memory at once; a longer line is alone.
_MAX_BYTES = 2 * 2**20
# That become jobs in one transaction: SQLite takes 15 ms for them, in which nobody else writes.
_MAX_LINES = 64
# Hostile schemas take their time, and other batches have their turn.
_MAX_S = 1.0
_FAULT_OF_OURS = LineRefusal(
    status_code=None,
    error={"code": "server_error", "message": "The server had an error while it prepared this request."},
)

log = structlog.get_logger()


class _Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a line becomes: a job, or nothing."""

    line: BatchLine
    job: NewJob | None = None
    refusal: LineRefusal | None = None


class LineJobs:
    """Makes jobs of lines. It runs an event loop of its own while schemas are judged, so keep it to one thread."""

    def __init__(self, services: BatchServices, models: BatchModels, clock: Callable[[], datetime]) -> None:
        self._services = services
        self._models = models
        self._clock = clock
        self._checks = ConstraintChecks()
        self._loop = asyncio.Runner()

    def close(self) -> None:
        """End the processes that judge schemas."""
        self._loop.run(self._checks.stop())
        self._loop.close()

    def submit(self, batch: Batch, lines: Sequence[BatchLine]) -> int:
        """How many of the lines were prepared: as many as are held in memory at once, and within the time of a step.

        Those that cannot be judged at the moment stay as they are.
        """
        some = _within(lines[:_MAX_LINES], _MAX_BYTES)
        reader = ContentReader(self._services.content, batch.input_file_id, batch.input_bytes)
        now, until = self._clock(), time.monotonic() + _MAX_S
        outcomes: list[_Outcome] = []
        num_prepared = 0
        for line in sorted(some, key=lambda line: line.offset):
            outcome = self._outcome_of(batch, line, partial(reader.read, line.offset, line.length), now)
            num_prepared += 1
            outcomes += [] if outcome is None else [outcome]
            if time.monotonic() >= until:
                break
        outcomes.sort(key=lambda one: one.line.position)
        for job in self._services.write(lambda c: self._store(c, batch, outcomes)):
            self._services.tickets.send(job.job_id, job.model, job.spec.priority_queue)
        return num_prepared

    def _outcome_of(self, batch: Batch, line: BatchLine, read: Callable[[], bytes], now: datetime) -> _Outcome | None:
        """What becomes of a line; None where it is to be tried again later."""
        try:
            request = parse_line(read(), batch)
            tools = self._models.tools_of(request.model)
            constraints = constraints_of(request)
            judged = self._judged(batch.owner, constraints) if constraints else {}
            prepared = prepare_line(request, batch, tools, dict(judged), self._services.settings)
            job = job_of_line(prepared, request, batch, line, now)
            jobs.refuse_nul(job.metadata)
        except (InvalidRequest, ModelNotFound) as error:
            return _Outcome(line=line, refusal=refusal_of(error))
        except FileNotFound as error:
            log.error("batch_line_gone", batch_id=batch.id, line=line.line, error=error.message)
            return _Outcome(line=line, refusal=_FAULT_OF_OURS)
        except StorageUnavailable:
            raise
        except PlatformError as error:
            log.warning("batch_line_postponed", batch_id=batch.id, line=line.line, error=error.message)
            return None
        except CheckerFailed as error:
            log.error("batch_line_not_judged", batch_id=batch.id, line=line.line, error=str(error))
            return _Outcome(line=line, refusal=_FAULT_OF_OURS)
        except Exception:  # exception boundary of a line: the others must not wait for it
            log.exception("batch_line_not_prepared", batch_id=batch.id, line=line.line)
            return _Outcome(line=line, refusal=_FAULT_OF_OURS)
        return _Outcome(line=line, job=job)

    def _judged(self, owner: str, constraints: Sequence[Constraint]) -> Mapping[str, Judged]:
        """The judgments; raises as `ConstraintChecks.judge`, and CheckerFailed when that happens twice."""
        try:
            return self._loop.run(self._checks.judge(owner, constraints))
        except CheckerFailed as error:
            # What stops a service may signal all of its processes at once. That says nothing about the line.
            log.warning("checker_ended", error=str(error))
            return self._loop.run(self._checks.judge(owner, constraints))

    def _store(self, c: Connection, batch: Batch, outcomes: Sequence[_Outcome]) -> list[NewJob]:
        """The jobs that were inserted. Lines that are jobs by now, and those of a cancelled batch, are left out."""
        if not batch_rows.lock_in_progress(c, batch.id):
            return []
        queued = batch_lines.lock_queued(c, batch.id, [one.line.line for one in outcomes])
        own = [one for one in outcomes if one.line.line in queued]
        for one in own:
            if one.refusal is not None:
                batch_lines.refuse(c, batch.id, one.line.line, one.refusal.status_code, one.refusal.error)
        new = [(one.line.line, one.job) for one in own if one.job is not None]
        batch_lines.put_jobs(c, batch.id, [(line, job.job_id) for line, job in new])
        settings = self._services.settings
        rows = [row for _, job in new for row in jobs.rows_of(job, settings.retention_s(job.store))]
        insert_rows(c, rows)
        return [job for _, job in new]


def _within(lines: Sequence[BatchLine], max_bytes: int) -> list[BatchLine]:
    """The first lines that have no more bytes together; one at least."""
    some: list[BatchLine] = []
    num_bytes = 0
    for line in lines:
        num_bytes += line.length
        if some and num_bytes > max_bytes:
            break
        some.append(line)
    return some
