"""Files whose time is over are erased."""

from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from storage.errors import FileNotFound, StorageUnavailable
from storage.files import stored_files
from storage.files.content_store import DatabaseContent
from storage.files.file_writer import FileWriter
from storage.files.stored_files import CHUNK_BYTES, UNFINISHED_FOR, NewFile
from storage.files.tables import FilePurpose
from tests.workers.harness import Backend
from workers.maintenance.file_erasure import FileErasure


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


def _erase_all(backend: Backend) -> None:
    erasure = FileErasure(backend.database, DatabaseContent(backend.database))
    while erasure.erase_files():
        pass


def test_files_whose_time_is_over_are_erased_with_their_content(backend: Backend) -> None:
    now, store = datetime.now(UTC), DatabaseContent(backend.database)
    _write(backend, "file-old", created_at=now, expires_at=now)
    _write(backend, "file-young", created_at=now)
    for file_id in ("file-old", "file-young"):
        _finish(backend, file_id)

    _erase_all(backend)

    assert _find_deleted(backend) is None
    with pytest.raises(FileNotFound):
        store.read("file-old", 19 * CHUNK_BYTES, 1)
    assert store.read("file-young", 19 * CHUNK_BYTES, 1) == b"\0"


def test_an_upload_that_broke_off_is_erased_after_an_hour(backend: Backend) -> None:
    now = datetime.now(UTC)
    _write(backend, "file-broken", created_at=now - UNFINISHED_FOR - timedelta(seconds=1), num_chunks=0)
    _write(backend, "file-running", created_at=now - UNFINISHED_FOR - timedelta(seconds=1), num_chunks=1)

    _erase_all(backend)

    _finish(backend, "file-running")
    with backend.database.connect() as c:
        assert [file.id for file in stored_files.list_files(c, "alice", now)] == ["file-running"]
    assert _find_deleted(backend) is None


class _ClosedStore(DatabaseContent):
    """A store that does not answer."""

    def erase_some(self, file_id: str) -> bool:
        raise StorageUnavailable("closed")


def test_a_store_that_does_not_answer_is_asked_again_later(backend: Backend) -> None:
    now = datetime.now(UTC)
    _write(backend, "file-old", created_at=now, expires_at=now, num_chunks=1)
    _finish(backend, "file-old")

    with capture_logs() as logs:
        assert not FileErasure(backend.database, _ClosedStore(backend.database)).erase_files()

    assert {"file_erasure_failed"} <= {one["event"] for one in logs}
    _erase_all(backend)
    assert _find_deleted(backend) is None
