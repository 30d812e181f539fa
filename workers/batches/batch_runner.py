"""The batch runner: brings every batch a step further, in the one process that has the sweeper's duty.

Another process may believe for a while that the duty is its own. Each step changes rows only as it found them, so a
step that two processes take is taken once.
"""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from redis.exceptions import RedisError
from sqlalchemy import Connection

from storage.batches import batch_lines, batch_rows
from storage.batches.batch_states import BatchStatus
from storage.batches.tables import Batch
from storage.errors import PlatformError, StorageUnavailable, reason_of
from storage.jobs import recovery
from workers.batches.batch_ends import BatchEnds
from workers.batches.batch_services import BatchServices
from workers.batches.batch_validation import BatchValidation
from workers.batches.fair_turns import FairTurns
from workers.batches.line_jobs import LineJobs
from workers.batches.result_files import ResultFiles, ResultsChanged
from workers.batches.served_models import BatchModels
from workers.batches.windows import Windows
from workers.maintenance.duties import PAGE

# That are looked after at once.
_MAX_BATCHES = 2000
# Of the steps of one pass; the next one goes on with the others. Meanwhile windows must be filled.
_STEPS_S = 1.0
_RECONCILE_EVERY_S = 30.0
# After files of results could not be written, so that an outage does not leave many unfinished ones.
_NEW_FILES_AFTER_S = 10.0

log = structlog.get_logger()


class BatchRunner:
    """Takes one step of each batch in a pass."""

    def __init__(
        self, services: BatchServices, has_duty: Callable[[], bool], clock: Callable[[], datetime] | None = None
    ) -> None:
        """has_duty: whether this process is the one that looks after batches
        clock:    that of the database unless given
        """
        clock = clock or services.now
        self._services = services
        self._has_duty = has_duty
        self._clock = clock
        self._models = BatchModels(services)
        self._validation = BatchValidation(services, self._models, clock)
        self._line_jobs = LineJobs(services, self._models, clock)
        self._windows = Windows(services, self._models, self._line_jobs)
        self._ends = BatchEnds(services, clock)
        self._files: dict[str, ResultFiles] = {}
        self._new_files_at: dict[str, float] = {}
        self._fair_turns = FairTurns()
        # When the pass began.
        self._now = datetime.min.replace(tzinfo=UTC)
        self._reconcile_at = 0.0
        self._is_stopping = False
        self._pass = threading.Lock()

    def run_once(self) -> bool:
        """Bring each batch a step further; whether more can be done at once."""
        with self._pass:
            return self._has_duty() and self._run_once()

    def _run_once(self) -> bool:
        batches = self._services.read(lambda c: batch_rows.list_open(c, _MAX_BATCHES))
        if not batches:
            return self._erase()
        self._models.refresh()
        self._now = self._clock()
        until = time.monotonic() + _STEPS_S
        has_more = False
        for batch in self._fair_turns.take(batches):
            if self._is_stopping:
                return False
            has_more |= self._guarded(partial(self._step, batch), batch.id)
            if time.monotonic() >= until:
                break
        running = [batch for batch in batches if self._is_running(batch)]
        if running:
            has_more |= self._windows.fill(running, self._guarded)
        if time.monotonic() >= self._reconcile_at:
            self._reconcile_at = time.monotonic() + _RECONCILE_EVERY_S
            for batch in batches:
                self._guarded(partial(self._ends.reconcile, batch), batch.id)
        return has_more | self._erase()

    def stop(self) -> None:
        """Let the pass that is under way end soon."""
        self._is_stopping = True

    def close(self) -> None:
        """Free what the runner holds, unless a pass is under way: then the process ends before it."""
        if not self._pass.acquire(blocking=False):
            return
        for files in self._files.values():
            files.give_up()
        self._line_jobs.close()

    def _guarded(self, step: Callable[[], bool], batch_id: str) -> bool:
        """The step's result; False where it failed, so that one batch does not stop the others."""
        try:
            return step()
        except (PlatformError, TimeoutError, RedisError) as error:
            log.warning("batch_step_failed", batch_id=batch_id, error=reason_of(error))
            if isinstance(error, StorageUnavailable):
                raise
        except Exception:  # exception boundary of a batch
            log.exception("batch_step_broken", batch_id=batch_id)
        return False

    def _is_running(self, batch: Batch) -> bool:
        return batch.status is BatchStatus.IN_PROGRESS and self._now < batch.expires_at

    def _step(self, batch: Batch) -> bool:
        match batch.status:
            case BatchStatus.VALIDATING:
                return self._validation.step(batch)
            case BatchStatus.IN_PROGRESS:
                return self._go_on(batch)
            case BatchStatus.CANCELLING:
                return self._cancel(batch)
            case BatchStatus.FINALIZING:
                return self._write_files(batch)
            case _:
                return self._clean_up(batch)

    def _go_on(self, batch: Batch) -> bool:
        if not self._is_running(batch) and self._ends.expire(batch):
            return True
        if self._services.read(lambda c: batch_lines.has_open(c, batch.id)):
            return False
        return self._services.write(lambda c: batch_rows.finalize(c, batch, self._clock()))

    def _cancel(self, batch: Batch) -> bool:
        if batch.in_progress_at is None:
            # It was not validated yet: no line was accepted.
            return self._services.write(lambda c: batch_rows.end(c, batch, BatchStatus.CANCELLED, self._clock()))
        if self._ends.cancel(batch):
            return True
        if self._services.read(lambda c: batch_lines.has_open(c, batch.id)):
            return False
        return self._write_files(batch)

    def _write_files(self, batch: Batch) -> bool:
        """Write a page of the results; whether there may be more at once."""
        if time.monotonic() < self._new_files_at.get(batch.id, 0.0):
            return False
        files = self._files.pop(batch.id, None) or ResultFiles(self._services, batch, self._clock)
        try:
            has_more = files.step()
        except ResultsChanged:
            log.warning("batch_files_begun_anew", batch_id=batch.id)
            files.give_up()
        except Exception:
            # Whatever it was, a page may be half written.
            self._new_files_at[batch.id] = time.monotonic() + _NEW_FILES_AFTER_S
            files.give_up()
            raise
        else:
            if has_more:
                self._files[batch.id] = files
        return True

    def _clean_up(self, batch: Batch) -> bool:
        """Free the jobs of an ended batch, and forget the lines of one that never began."""
        self._new_files_at.pop(batch.id, None)
        files = self._files.pop(batch.id, None)
        if files is not None:
            # Another process was faster.
            files.give_up()
        now = self._clock()
        if batch.in_progress_at is None:
            num = self._services.write(lambda c: batch_lines.delete_lines(c, batch.id, PAGE))
        else:
            num = self._services.write(lambda c: recovery.release_of_batch(c, batch.id, now, PAGE))
        if num == PAGE:
            return True
        life = timedelta(seconds=self._services.settings.batch_retention_s)
        self._services.write(lambda c: batch_rows.close(c, batch.id, now + life))
        return False

    def _erase(self) -> bool:
        """Erase a page of batches' lines whose time is over; whether there may be more."""
        due: Sequence[str] = self._services.read(lambda c: batch_rows.list_erasable(c, self._clock(), 1))
        for batch_id in due:
            self._services.write(partial(_erase_some, batch_id=batch_id))
        return bool(due)


def _erase_some(connection: Connection, *, batch_id: str) -> None:
    """Erase a page of the batch's lines, and with the last of them its row."""
    if batch_lines.delete_lines(connection, batch_id, PAGE) < PAGE:
        batch_rows.erase(connection, batch_id)
