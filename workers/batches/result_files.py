"""The files of a batch's results, made from the rows of its lines and jobs when all lines have ended.

They are made in one place and at the end, so a process that dies while it writes them leaves nothing but unfinished
files, which maintenance erases; the next one begins anew.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import Connection

from api.protocol.batches.result_lines import answered_line, request_id_of, unanswered_line
from api.protocol.kinds import object_of
from storage.batches import batch_lines, batch_rows, line_outcomes
from storage.batches.batch_states import BatchStatus, LineStatus
from storage.batches.tables import Batch, BatchLine
from storage.files import stored_files
from storage.files.file_writer import FileWriter
from storage.files.stored_files import NewFile
from storage.files.tables import FilePurpose
from storage.ids import new_id
from storage.jobs import records
from storage.jobs.records import JobRecord
from workers.batches.batch_services import BatchServices

_PAGE = 32
# Of the requests and results of a page, as they are stored; in memory they are several times larger.
_PAGE_BYTES = 4_000_000
# Files that did not grow for an hour are given up, and a page can wait long for the steps of other batches.
_KEEP_EVERY = timedelta(minutes=10)
_DEFAULT_LIFE = timedelta(days=30)


class ResultsChanged(Exception):
    """A job was erased, or another process ended the batch, while its files were written."""


class _Totals(msgspec.Struct, kw_only=True):
    """Lines in each file so far, and tokens of all jobs."""

    num_output: int = 0
    num_error: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


class ResultFiles:
    """Writes the files of one batch, a page of lines each time."""

    def __init__(self, services: BatchServices, batch: Batch, clock: Callable[[], datetime]) -> None:
        self._services = services
        self._batch = batch
        self._clock = clock
        self._after = 0
        self._totals = _Totals()
        self._output: FileWriter | None = None
        self._error: FileWriter | None = None
        self._kept_at = clock()

    def step(self) -> bool:
        """Write the next page of lines, or finish; whether more is left. Raises ResultsChanged."""
        lines = self._services.read(lambda c: batch_lines.list_lines(c, self._batch.id, after=self._after, limit=_PAGE))
        if not lines:
            self._finish()
            return False
        self._keep()
        job_ids = [line.job_id for line in lines if line.job_id is not None]
        sizes = self._services.read(lambda c: records.list_result_bytes(c, job_ids))
        lines = _within(lines, sizes)
        job_ids = [line.job_id for line in lines if line.job_id is not None]
        found = self._services.read(lambda c: records.list_whole(c, job_ids))
        lost = [line.job_id for line in lines if line.status is LineStatus.COMPLETED and line.job_id not in found]
        if lost:
            self._services.write(lambda c: line_outcomes.note_erased(c, {job: self._batch.id for job in lost if job}))
            raise ResultsChanged
        for line in lines:
            self._write_line(line, found.get(line.job_id or ""))
        self._after = lines[-1].line
        return True

    def give_up(self) -> None:
        """Leave what was written to be erased."""
        for writer in (self._output, self._error):
            if writer is not None:
                writer.give_up()

    def _keep(self) -> None:
        """Tell maintenance now and then that the files are still being written."""
        now = self._clock()
        if now < self._kept_at + _KEEP_EVERY:
            return
        self._kept_at = now
        file_ids = [writer.file_id for writer in (self._output, self._error) if writer is not None]
        self._services.write(lambda c: stored_files.keep_unfinished(c, file_ids, now))

    def _write_line(self, line: BatchLine, job: JobRecord | None) -> None:
        if job is not None:
            self._count_tokens(job)
        request_id = request_id_of(self._batch.id, line.line)
        if line.status is LineStatus.COMPLETED:
            assert job is not None
            self._totals.num_output += 1
            body = object_of(
                records.header_of(job), records.result_of(job), records.end_of(job), metadata=job.metadata_
            )
            self._output = self._output or self._begin("output")
            self._output.write(answered_line(request_id, line.custom_id, 200, body))
            return
        self._totals.num_error += 1
        self._error = self._error or self._begin("error")
        error = line.error or {}
        if line.status_code is not None:
            self._error.write(answered_line(request_id, line.custom_id, line.status_code, {"error": error}))
        else:
            self._error.write(
                unanswered_line(request_id, line.custom_id, str(error.get("code")), str(error.get("message")))
            )

    def _count_tokens(self, job: JobRecord) -> None:
        usage = records.usage_of(job)
        if usage is not None:
            self._totals.input_tokens += usage.prompt_tokens
            self._totals.cached_tokens += usage.cached_tokens
            self._totals.output_tokens += usage.completion_tokens
            self._totals.reasoning_tokens += usage.reasoning_tokens

    def _begin(self, noun: str) -> FileWriter:
        now, life_s = self._clock(), self._batch.output_expires_after_s
        new = NewFile(
            file_id=new_id("file-"),
            owner=self._batch.owner,
            purpose=FilePurpose.BATCH_OUTPUT,
            filename=f"{self._batch.id}_{noun}.jsonl",
            created_at=now,
            expires_at=now + (_DEFAULT_LIFE if life_s is None else timedelta(seconds=life_s)),
        )
        return FileWriter(self._services.database, self._services.content, new)

    def _finish(self) -> None:
        for writer in (self._output, self._error):
            if writer is not None:
                writer.close()
        if not self._services.write(self._store):
            raise ResultsChanged

    def _store(self, c: Connection) -> bool:
        """Whether the files are those of the ended batch now, and hold each line once."""
        counts = batch_rows.count_lines(c, [self._batch.id])[self._batch.id]
        num_completed, num_lines = counts.get(LineStatus.COMPLETED, 0), sum(counts.values())
        if (num_completed, num_lines - num_completed) != (self._totals.num_output, self._totals.num_error):
            return False
        now = self._clock()
        usage = {name: value for name, value in msgspec.to_builtins(self._totals).items() if name.endswith("_tokens")}
        is_ended = batch_rows.end(
            c,
            self._batch,
            self._final_status(counts),
            now,
            output_file_id=None if self._output is None else self._output.file_id,
            error_file_id=None if self._error is None else self._error.file_id,
            usage=usage,
            num_completed=num_completed,
        )
        # Only those of the process that ended the batch are ever seen.
        for writer in (self._output, self._error) if is_ended else ():
            if writer is not None:
                stored_files.finish(c, writer.file_id, now)
        return is_ended

    def _final_status(self, counts: batch_rows.Counts) -> BatchStatus:
        if self._batch.cancelling_at is not None:
            return BatchStatus.CANCELLED
        ended_at = self._batch.finalizing_at or self._clock()
        is_late = ended_at >= self._batch.expires_at and counts.get(LineStatus.EXPIRED, 0) > 0
        return BatchStatus.EXPIRED if is_late else BatchStatus.COMPLETED


def _within(lines: list[BatchLine], result_bytes: Mapping[str, int]) -> list[BatchLine]:
    """The first lines whose requests and results have no more than a page's bytes together; one at least."""
    some: list[BatchLine] = []
    num_bytes = 0
    for line in lines:
        num_bytes += line.length + result_bytes.get(line.job_id or "", 0)
        if some and num_bytes > _PAGE_BYTES:
            break
        some.append(line)
    return some
