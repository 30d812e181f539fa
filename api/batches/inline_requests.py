"""Requests in the body of a create call: they are checked at once and become an input file."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import structlog
from pydantic_core import to_json

from api.protocol.batches.batch_line import LineFault, read_line
from api.protocol.kinds import ENDPOINTS
from storage.database.connections import Database
from storage.errors import InvalidBatchLine, PlatformError, StorageUnavailable
from storage.files import stored_files
from storage.files.content_store import ContentStore
from storage.files.file_writer import FileWriter
from storage.files.stored_files import NewFile
from storage.files.tables import FilePurpose
from storage.ids import new_id

# As of uploaded files of this purpose.
_LIFE = timedelta(days=30)

log = structlog.get_logger()


def lines_of(requests: Sequence[object], endpoint: str, is_known: Callable[[str], bool]) -> list[bytes]:
    """The lines of an input file; raises InvalidBatchLine for the first request at fault.

    is_known: whether a model exists
    """
    lines, seen = [], set[str]()
    for index, request in enumerate(requests):
        param, data = f"requests[{index}]", to_json(request)
        line = read_line(data, endpoint, ENDPOINTS)
        if isinstance(line, LineFault):
            message = line.message.replace("This line", "This request")
            raise InvalidBatchLine(message, param=param if line.param is None else f"{param}.{line.param}")
        if line.custom_id in seen:
            raise InvalidBatchLine("The custom_id is that of an earlier request.", param=f"{param}.custom_id")
        if line.model and not is_known(line.model):
            message = f"The model '{line.model}' does not exist or you do not have access to it."
            raise InvalidBatchLine(message, param=f"{param}.body.model")
        seen.add(line.custom_id)
        lines.append(data)
    return lines


class InlineInputs:
    """Writes such requests as files. It blocks, so it is for threads."""

    def __init__(self, database: Database, store: ContentStore, *, max_stored_bytes: int | None) -> None:
        """max_stored_bytes: what the files of one owner may hold together; None is no limit"""
        self._database = database
        self._store = store
        self._max_stored_bytes = max_stored_bytes

    def write(self, owner: str, lines: Sequence[bytes], now: datetime) -> str:
        """The id of a file with these lines, not finished yet; FileStorageFull, and what the store raises.

        Nothing is kept of a file that was not written whole.
        """
        new = NewFile(
            file_id=new_id("file-"),
            owner=owner,
            purpose=FilePurpose.BATCH,
            filename="requests.jsonl",
            created_at=now,
            expires_at=now + _LIFE,
        )
        writer = FileWriter(self._database, self._store, new, max_stored_bytes=self._max_stored_bytes)
        try:
            for line in lines:
                writer.write(line + b"\n")
            writer.close()
        except PlatformError:
            self.give_up(writer.file_id)
            raise
        return writer.file_id

    def give_up(self, file_id: str) -> None:
        """Leave a file to be erased that no batch was created of."""
        try:
            with self._database.begin() as connection:
                stored_files.give_up(connection, file_id, datetime.now(UTC))
        except StorageUnavailable as error:
            # Maintenance erases it all the same, later.
            log.warning("input_not_given_up", file_id=file_id, error=error.message)
