"""Validation of a batch's input file: a group of lines each time, from where the last group ended.

The cursor moves in the transaction that inserts the lines of a group, so a crash repeats at most one group.
"""

from collections.abc import Callable, Iterator
from datetime import datetime

import msgspec
import structlog
from sqlalchemy import Connection

from api.protocol.batches.batch_line import BatchLine as LineRequest
from api.protocol.batches.batch_line import LineFault, read_line
from api.protocol.batches.line_splitter import Line, LineSplitter
from api.protocol.kinds import ENDPOINTS
from storage.batches import batch_lines, batch_rows
from storage.batches.batch_states import BatchStatus, LineStatus
from storage.batches.tables import Batch, BatchLine
from storage.database.bulk_insert import BulkInserts
from storage.errors import FileNotFound
from storage.files.stored_files import CHUNK_BYTES
from workers.batches.batch_services import BatchServices
from workers.batches.served_models import BatchModels

MAX_LINES = 50_000
# Of a file, blank ones included.
MAX_PHYSICAL_LINES = 1_000_000
MAX_FAULTS = 100
# Of one group. To insert as many takes SQLite 15 ms, in which nobody else writes.
GROUP_LINES = 250
_GROUP_PHYSICAL_LINES = 100_000
_GROUP_BYTES = 4 * 2**20
_SLICE_BYTES = 64 * 1024
# Of a line, besides its body.
_ENVELOPE_BYTES = 8 * 1024

log = structlog.get_logger()


class _Group(msgspec.Struct, kw_only=True):
    """What was found in a part of the file.

    lines:   as they may become rows, by custom id
    faults:  by number of the physical line
    is_last: whether nothing is to be validated behind it
    """

    lines: dict[str, tuple[Line, LineRequest]]
    faults: list[tuple[int, LineFault]]
    offset: int
    number: int
    is_last: bool = False


class BatchValidation:
    """Validates batches, a group of lines at a time."""

    def __init__(self, services: BatchServices, models: BatchModels, clock: Callable[[], datetime]) -> None:
        self._services = services
        self._models = models
        self._clock = clock
        self._inserts = BulkInserts()

    def step(self, batch: Batch) -> bool:
        """Validate the next group of lines; whether the batch may go on at once."""
        if batch.retry_of is not None:
            return self._copy(batch, batch.retry_of)
        try:
            group = self._read_group(batch)
        except FileNotFound as error:
            log.error("batch_input_gone", batch_id=batch.id, error=error.message)
            return self._services.write(lambda c: self._fail_unread(c, batch))
        self._note_known_ids(batch, group)
        self._note_unknown_models(group)
        return self._services.write(lambda c: self._store(c, batch, group))

    def _read_group(self, batch: Batch) -> _Group:
        splitter = LineSplitter(
            offset=batch.cursor_offset,
            number=batch.cursor_line,
            max_line_bytes=self._services.settings.max_body_bytes + _ENVELOPE_BYTES,
        )
        group = _Group(lines={}, faults=[], offset=batch.cursor_offset, number=batch.cursor_line)
        for line in self._lines(batch, splitter):
            self._add(batch, group, line)
            if group.is_last or len(group.lines) + len(group.faults) >= GROUP_LINES:
                break
        group.offset, group.number = splitter.offset, splitter.number
        group.is_last |= splitter.offset >= batch.input_bytes
        if group.number > MAX_PHYSICAL_LINES:
            message = f"The file has more than {MAX_PHYSICAL_LINES} lines, blank ones included."
            group.faults.append((group.number, LineFault(code="too_many_tasks", message=message)))
            group.is_last = True
        return group

    def _lines(self, batch: Batch, splitter: LineSplitter) -> Iterator[Line]:
        """Lines from the cursor on; to the end of the file, or as far as one group reads."""
        position, first_line = batch.cursor_offset, batch.cursor_line
        end = position + self._services.settings.max_body_bytes + _ENVELOPE_BYTES + _GROUP_BYTES
        while position < batch.input_bytes:
            if position >= end or splitter.number - first_line >= _GROUP_PHYSICAL_LINES:
                return
            length = min(CHUNK_BYTES, batch.input_bytes - position)
            data = self._services.content.read(batch.input_file_id, position, length)
            position += length
            for start in range(0, length, _SLICE_BYTES):
                yield from splitter.push(data[start : start + _SLICE_BYTES])
        last = splitter.close()
        if last is not None:
            yield last

    def _add(self, batch: Batch, group: _Group, line: Line) -> None:
        if line.data is None:
            message = f"This line is longer than {self._services.settings.max_body_bytes} bytes."
            group.faults.append((line.number, LineFault(code="invalid_json_line", message=message)))
            group.is_last = True
            return
        if batch.num_lines + len(group.lines) >= MAX_LINES:
            message = f"The file has more than {MAX_LINES} requests."
            group.faults.append((line.number, LineFault(code="too_many_tasks", message=message)))
            group.is_last = True
            return
        found = read_line(line.data, batch.endpoint, ENDPOINTS)
        if isinstance(found, LineFault):
            group.faults.append((line.number, found))
        elif found.custom_id in group.lines:
            group.faults.append((line.number, _duplicate(found.custom_id)))
        else:
            group.lines[found.custom_id] = line, found

    def _note_known_ids(self, batch: Batch, group: _Group) -> None:
        known = self._services.read(lambda c: batch_lines.find_known_ids(c, batch.id, group.lines.keys()))
        for custom_id in known:
            line, _ = group.lines.pop(custom_id)
            group.faults.append((line.number, _duplicate(custom_id)))

    def _note_unknown_models(self, group: _Group) -> None:
        """A body without a readable model is left to the checks of its own request."""
        for line, request in group.lines.values():
            if request.model and not self._models.is_known(request.model):
                message = f"The model '{request.model}' does not exist or you do not have access to it."
                fault = LineFault(code="model_not_found", message=message, param="body.model")
                group.faults.append((line.number, fault))

    def _store(self, c: Connection, batch: Batch, group: _Group) -> bool:
        errors = [*(batch.errors or ()), *_errors_of(group.faults)][:MAX_FAULTS]
        num_lines = batch.num_lines + len(group.lines)
        if group.is_last and not errors and num_lines == 0:
            errors = _errors_of([(0, LineFault(code="empty_file", message="The file has no requests."))])
        rows = _rows_of(batch, group)
        is_stored = batch_rows.note_validated(
            c,
            batch,
            cursor_offset=group.offset,
            cursor_line=group.number,
            num_lines=num_lines,
            models=sorted({*batch.models, *(row.model for row in rows if row.model)}),
            errors=errors or None,
        )
        if not is_stored:
            return False
        now = self._clock()
        if errors and (group.is_last or len(errors) >= MAX_FAULTS):
            return batch_rows.end(c, batch, BatchStatus.FAILED, now)
        batch_lines.insert_lines(c, self._inserts, rows)
        return not group.is_last or batch_rows.begin(c, batch, now)

    def _fail_unread(self, c: Connection, batch: Batch) -> bool:
        """Fail a batch whose input was lost; whatever holds a file keeps it from being erased."""
        fault = LineFault(code="server_error", message="The content of the input file is lost.", param="input_file_id")
        return batch_rows.end(c, batch, BatchStatus.FAILED, self._clock(), errors=_errors_of([(0, fault)]))

    def _copy(self, batch: Batch, source_id: str) -> bool:
        """Take the next lines of another batch that had no success there."""

        def operation(c: Connection) -> bool:
            rows = batch_lines.copy_without_success(c, source_id, batch.id, batch.cursor_line, GROUP_LINES)
            is_stored = batch_rows.note_validated(
                c,
                batch,
                cursor_line=rows[-1].line if rows else batch.cursor_line,
                num_lines=batch.num_lines + len(rows),
                models=sorted({*batch.models, *(row.model for row in rows if row.model)}),
            )
            if is_stored and rows:
                batch_lines.insert_lines(c, self._inserts, rows)
            return is_stored and (bool(rows) or batch_rows.begin(c, batch, self._clock()))

        return self._services.write(operation)


def _duplicate(custom_id: str) -> LineFault:
    message = f"The custom_id '{custom_id[:100]}' is that of an earlier line."
    return LineFault(code="duplicate_custom_id", message=message, param="custom_id")


def _errors_of(faults: list[tuple[int, LineFault]]) -> list[dict[str, object]]:
    """Faults as the `errors` of a batch tell them, by line; one without a line is of the whole file."""
    return [
        {"code": fault.code, "message": fault.message, "param": fault.param, "line": line or None}
        for line, fault in sorted(faults, key=lambda one: one[0])
    ]


def _rows_of(batch: Batch, group: _Group) -> list[BatchLine]:
    """The rows of a group. Within it, lines that share a beginning become jobs one after another."""
    found = sorted(group.lines.values(), key=lambda one: (one[1].model, one[1].beginning, one[0].number))
    return [
        BatchLine(
            batch_id=batch.id,
            line=line.number,
            custom_id=request.custom_id,
            position=batch.num_lines + rank,
            model=request.model,
            offset=line.offset,
            length=len(line.data or b""),
            status=LineStatus.QUEUED,
        )
        for rank, (line, request) in enumerate(found)
    ]
