"""Contents of files in a local folder and in an S3-compatible store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.database.connections import Database
from storage.errors import FileNotFound, SettingInvalid, StorageUnavailable
from storage.files import stored_files
from storage.files.content_store import ContentStore, DatabaseContent, open_content
from storage.files.file_writer import FileWriter
from storage.files.stored_files import CHUNK_BYTES, NewFile
from storage.files.tables import FilePurpose
from storage.ids import new_id
from storage.settings import StorageSettings
from tests.storage.examples import NOW
from tests.storage.s3_server import S3Server, running_s3

CONTENT = bytes(range(256)) * (2 * CHUNK_BYTES // 256) + b"the end"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """SQLite is enough where it is not the database that is tested."""
    return sqlite_url


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A store that AWS's own variables name."""
    with running_s3() as server:
        for name, value in (
            ("AWS_ENDPOINT", server.url),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "eu-central-1"),
        ):
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, database: Database, tmp_path: Path) -> ContentStore:
    """An empty store of each kind."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        return open_content("s3://bucket/files", database)
    return open_content(f"file://{tmp_path}/a%20folder", database)


def _write(database: Database, store: ContentStore) -> str:
    new = NewFile(
        file_id=new_id("file-"), owner="alice", purpose=FilePurpose.BATCH, filename="a b.jsonl", created_at=NOW
    )
    writer = FileWriter(database, store, new)
    for start in range(0, len(CONTENT), 700_000):
        writer.write(CONTENT[start : start + 700_000])
    writer.close()
    with database.begin() as c:
        assert stored_files.finish(c, new.file_id, NOW).size_bytes == len(CONTENT)
    return new.file_id


def test_content_is_read_by_range_as_it_was_written(database: Database, store: ContentStore) -> None:
    file_id = _write(database, store)

    for start, length in ((0, 10), (CHUNK_BYTES - 3, 7), (CHUNK_BYTES, CHUNK_BYTES), (2 * CHUNK_BYTES, 7), (5, 2**20)):
        assert store.read(file_id, start, length) == CONTENT[start : start + length]
    for start, length in ((len(CONTENT) - 1, 2), (9 * CHUNK_BYTES, 1)):
        with pytest.raises(FileNotFound):
            store.read(file_id, start, length)
    with pytest.raises(FileNotFound):
        DatabaseContent(database).read(file_id, 0, 1)


def test_a_deleted_file_leaves_nothing_in_the_store(database: Database, store: ContentStore, tmp_path: Path) -> None:
    gone, kept = _write(database, store), _write(database, store)

    while store.erase_some(gone):
        pass

    with pytest.raises(FileNotFound):
        store.read(gone, 0, 1)
    assert store.read(kept, 0, 1) == b"\0"
    assert [path for path in tmp_path.rglob("*") if gone in str(path)] == []


def test_files_of_before_are_read_and_erased_in_the_database(database: Database, store: ContentStore) -> None:
    file_id = _write(database, DatabaseContent(database))

    assert store.read(file_id, CHUNK_BYTES - 3, 7) == CONTENT[CHUNK_BYTES - 3 : CHUNK_BYTES + 4]
    while store.erase_some(file_id):
        pass
    with pytest.raises(FileNotFound):
        store.read(file_id, 0, 1)


def test_objects_have_a_key_for_each_chunk(database: Database, s3: S3Server) -> None:
    file_id = _write(database, open_content("s3://bucket/files", database))

    assert sorted(s3.objects) == [f"bucket/files/{file_id}/{number:06d}" for number in range(3)]


def test_a_store_that_refuses_is_unavailable_and_names_no_host(database: Database, s3: S3Server) -> None:
    store = open_content("s3://bucket/files", database)
    file_id = _write(database, store)
    s3.is_failing = True

    for call in (lambda: _write(database, store), lambda: store.read(file_id, 0, 1), lambda: store.erase_some(file_id)):
        with pytest.raises(StorageUnavailable) as caught:
            call()
        assert "127.0.0.1" not in caught.value.message


@pytest.mark.parametrize("url", ["ftp://x/y", "s3://", "file://relative", "/tmp/x", "memory://"])
def test_another_url_is_refused_by_name(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENPOST_FILES_URL", url)

    with pytest.raises(SettingInvalid, match="TOKENPOST_FILES_URL"):
        StorageSettings.read(database_url="sqlite:////x.db", redis_url="redis://localhost")


def test_a_folder_that_cannot_be_made_is_refused_by_name(database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(SettingInvalid, match="TOKENPOST_FILES_URL"):
        open_content(f"file://{tmp_path}/file/folder", database)


def test_the_database_is_the_store_unless_another_is_named(database: Database) -> None:
    assert isinstance(open_content(None, database), DatabaseContent)
