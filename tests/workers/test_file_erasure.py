"""The sweeper erases files whose time is over."""

from datetime import UTC, datetime, timedelta

import pytest

from storage.errors import FileNotFound
from storage.files import stored_files
from storage.files.content_store import DatabaseContent
from storage.files.file_writer import FileWriter
from storage.files.stored_files import CHUNK_BYTES, UNFINISHED_FOR, NewFile
from storage.files.tables import FilePurpose
from tests.workers.harness import Backend
from workers.maintenance.sweeper import Sweeper


def _write(
    backend: Backend, file_id: str, *, created_at: datetime, expires_at: datetime | None = None, num_chunks: int = 20
) -> None:
    new = NewFile(
        file_id=file_id,
        owner="alice",
        purpose=FilePurpose.BATCH,
        filename="f",
        created_at=created_at,
        expires_at=expires_at,
    )
    writer = FileWriter(backend.database, DatabaseContent(backend.database), new)
    writer.write(bytes(num_chunks * CHUNK_BYTES))
    writer.close()


def _finish(backend: Backend, file_id: str) -> None:
    with backend.database.begin() as c:
        stored_files.finish(c, file_id, datetime.now(UTC))


def _find_deleted(backend: Backend) -> str | None:
    with backend.database.connect() as c:
        return stored_files.find_deleted(c)


def test_files_whose_time_is_over_are_erased_with_their_content(backend: Backend, sweeper: Sweeper) -> None:
    now, store = datetime.now(UTC), DatabaseContent(backend.database)
    _write(backend, "file-old", created_at=now, expires_at=now)
    _write(backend, "file-young", created_at=now)
    for file_id in ("file-old", "file-young"):
        _finish(backend, file_id)

    sweeper.sweep()

    assert _find_deleted(backend) is None
    with pytest.raises(FileNotFound):
        store.read("file-old", 19 * CHUNK_BYTES, 1)
    assert store.read("file-young", 19 * CHUNK_BYTES, 1) == b"\0"


def test_an_upload_that_broke_off_is_erased_after_an_hour(backend: Backend, sweeper: Sweeper) -> None:
    now = datetime.now(UTC)
    _write(backend, "file-broken", created_at=now - UNFINISHED_FOR - timedelta(seconds=1), num_chunks=0)
    _write(backend, "file-running", created_at=now - UNFINISHED_FOR - timedelta(seconds=1), num_chunks=1)

    sweeper.sweep()

    _finish(backend, "file-running")
    with backend.database.connect() as c:
        assert [file.id for file in stored_files.list_files(c, "alice", now)] == ["file-running"]
    assert _find_deleted(backend) is None
