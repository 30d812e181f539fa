"""Files: written in chunks, seen once finished, listed, held, deleted, expired and erased."""

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from storage.database.connections import Database
from storage.database.table_definitions import table_of
from storage.errors import FileInUse, FileNotFound, FileStorageFull, UploadInterrupted
from storage.files import stored_files
from storage.files.content_store import DatabaseContent
from storage.files.file_writer import FileWriter
from storage.files.stored_files import CHUNK_BYTES, UNFINISHED_FOR, NewFile, StoredFile
from storage.files.tables import FileChunk, FilePurpose
from storage.ids import new_id
from tests.storage.examples import NOW, after

CONTENT = bytes(range(256)) * (2 * CHUNK_BYTES // 256) + b"the end"


def _new(**changes: Any) -> NewFile:
    values: dict[str, Any] = {
        "file_id": new_id("file-"),
        "owner": "alice",
        "purpose": FilePurpose.BATCH,
        "filename": "lines.jsonl",
        "created_at": NOW,
    }
    return NewFile(**(values | changes))


def _written(database: Database, content: bytes = b"{}", *, is_finished: bool = True, **changes: Any) -> str:
    """The id of a file with that content."""
    new = _new(**changes)
    writer = FileWriter(database, DatabaseContent(database), new)
    for start in range(0, len(content), 300_000):
        writer.write(content[start : start + 300_000])
    writer.close()
    if is_finished:
        with database.begin() as c:
            stored_files.finish(c, new.file_id, NOW)
    return new.file_id


def _get(database: Database, file_id: str, owner: str = "alice", now: datetime = NOW) -> StoredFile:
    with database.connect() as c:
        return stored_files.get(c, file_id, owner, now)


def _num_chunks(c: Connection, file_id: str) -> int:
    table = table_of(FileChunk)
    return c.execute(select(func.count()).select_from(table).where(table.c.file_id == file_id)).scalar_one()


def test_a_file_is_read_as_it_was_written_and_by_its_owner_alone(database: Database) -> None:
    file_id = _written(database, CONTENT, expires_at=after(60))

    found = _get(database, file_id)
    assert (found.purpose, found.filename, found.size_bytes) == (FilePurpose.BATCH, "lines.jsonl", len(CONTENT))
    assert (found.created_at, found.expires_at) == (NOW, after(60))
    for other_id, owner in ((file_id, "bob"), ("file-absent", "alice"), ("\0", "alice")):
        with pytest.raises(FileNotFound):
            _get(database, other_id, owner)


def test_content_is_read_by_range_across_chunks(database: Database) -> None:
    store, file_id = DatabaseContent(database), _written(database, CONTENT)

    for start, length in ((0, 10), (CHUNK_BYTES - 3, 7), (CHUNK_BYTES, CHUNK_BYTES), (2 * CHUNK_BYTES, 7), (5, 2**20)):
        assert store.read(file_id, start, length) == CONTENT[start : start + length]
    for start, length in ((len(CONTENT) - 1, 2), (len(CONTENT), 1), (9 * CHUNK_BYTES, 1)):
        with pytest.raises(FileNotFound):
            store.read(file_id, start, length)
    with database.connect() as c:
        assert _num_chunks(c, file_id) == 3


def test_a_file_is_seen_only_once_it_is_finished(database: Database) -> None:
    file_id = _written(database, is_finished=False)
    with pytest.raises(FileNotFound):
        _get(database, file_id)

    with database.begin() as c:
        stored_files.describe(c, file_id, FilePurpose.VISION, after(9))
        finished = stored_files.finish(c, file_id, after(1))

    assert _get(database, file_id) == finished
    assert (finished.purpose, finished.expires_at) == (FilePurpose.VISION, after(9))


def test_chunks_come_in_order_each_once_and_only_before_the_end(database: Database) -> None:
    new = _new()
    with database.begin() as c:
        stored_files.create(c, new)
        stored_files.append_chunk(c, new.file_id, 0, bytes(CHUNK_BYTES), NOW)
    for number in (0, 2):
        with pytest.raises(UploadInterrupted), database.begin() as c:
            stored_files.append_chunk(c, new.file_id, number, b"x", NOW)
    with database.begin() as c:
        stored_files.append_chunk(c, new.file_id, 1, b"x", NOW)
        assert stored_files.finish(c, new.file_id, NOW).size_bytes == CHUNK_BYTES + 1

    with pytest.raises(UploadInterrupted), database.begin() as c:
        stored_files.append_chunk(c, new.file_id, 1, b"x", NOW)
    with pytest.raises(UploadInterrupted), database.begin() as c:
        stored_files.finish(c, new.file_id, NOW)


def test_files_are_listed_in_pages_by_age(database: Database) -> None:
    ids = [_written(database, file_id=f"file-{number}") for number in range(4)]
    _written(database, owner="bob")
    _written(database, is_finished=False)
    _written(database, expires_at=NOW)
    other = _written(database, file_id="file-9", purpose=FilePurpose.USER_DATA)

    def listed(**options: Any) -> list[str]:
        with database.connect() as c:
            return [file.id for file in stored_files.list_files(c, "alice", NOW, **options)]

    assert listed() == [other, *ids[::-1]]
    assert listed(limit=2, is_newest_first=False) == ids[:2]
    assert listed(after=ids[1], is_newest_first=False, purpose=FilePurpose.BATCH) == ids[2:]
    assert listed(after=ids[2]) == ids[1::-1]
    assert listed(purpose=FilePurpose.USER_DATA) == [other]
    assert listed(after="\0") == []


def test_a_deleted_file_is_gone_at_once_and_its_content_bit_by_bit(database: Database) -> None:
    file_id, kept = _written(database, CONTENT), _written(database, CONTENT)

    with database.begin() as c:
        stored_files.delete_file(c, file_id, "alice", NOW)
    with pytest.raises(FileNotFound):
        _get(database, file_id)
    with pytest.raises(FileNotFound), database.begin() as c:
        stored_files.delete_file(c, file_id, "alice", NOW)

    with database.begin() as c:
        assert stored_files.find_deleted(c) == file_id
        assert stored_files.erase_chunks(c, file_id, 2)
        assert not stored_files.erase_chunks(c, file_id, 2)
        stored_files.erase_row(c, file_id)
        assert (_num_chunks(c, file_id), stored_files.find_deleted(c)) == (0, None)
        stored_files.erase_row(c, kept)
    assert _get(database, kept).size_bytes == len(CONTENT)


def test_a_file_that_is_read_is_neither_deleted_nor_expires(database: Database) -> None:
    file_id = _written(database, expires_at=after(10))
    with database.begin() as c:
        assert stored_files.hold(c, file_id, "alice", "batch_1", NOW).id == file_id
        with pytest.raises(FileNotFound):
            stored_files.hold(c, file_id, "bob", "batch_2", NOW)

    with pytest.raises(FileInUse), database.begin() as c:
        stored_files.delete_file(c, file_id, "alice", NOW)
    with database.begin() as c:
        assert stored_files.list_ended(c, after(20), 10) == []
        assert stored_files.read_range(c, file_id, 0, 2) == b"{}"
        stored_files.release(c, "batch_1")
        assert stored_files.list_ended(c, after(20), 10) == [file_id]
        stored_files.delete_file(c, file_id, "alice", NOW)


def test_an_expired_file_is_held_by_nothing_any_more(database: Database) -> None:
    file_id = _written(database, expires_at=after(10))

    with database.begin() as c, pytest.raises(FileNotFound):
        stored_files.hold(c, file_id, "alice", "batch_1", after(10))


def test_an_upload_that_broke_off_is_given_up_after_an_hour(database: Database) -> None:
    new, finished = _new(), _written(database)
    with database.begin() as c:
        stored_files.create(c, new)
        stored_files.append_chunk(c, new.file_id, 0, bytes(CHUNK_BYTES), after(60))

    with database.begin() as c:
        assert stored_files.list_ended(c, after(60) + UNFINISHED_FOR, 10) == []
        assert stored_files.list_ended(c, after(61) + UNFINISHED_FOR, 10) == [new.file_id]
        stored_files.mark_ended(c, [new.file_id, finished], after(61) + UNFINISHED_FOR)
        assert stored_files.find_deleted(c) == new.file_id
    assert _get(database, finished).id == finished


def test_a_file_that_was_given_up_takes_no_more_content(database: Database) -> None:
    new = _new()
    writer = FileWriter(database, DatabaseContent(database), new)
    writer.write(bytes(CHUNK_BYTES))
    writer.give_up()

    with pytest.raises(UploadInterrupted):
        writer.write(bytes(CHUNK_BYTES))
    with database.connect() as c:
        assert stored_files.find_deleted(c) == new.file_id


def test_an_owner_stores_no_more_than_the_limit(database: Database) -> None:
    store = DatabaseContent(database)
    _written(database, CONTENT, owner="bob")
    writer = FileWriter(database, store, _new(), max_stored_bytes=17 * CHUNK_BYTES)
    writer.write(bytes(17 * CHUNK_BYTES))
    other = FileWriter(database, store, _new(), max_stored_bytes=17 * CHUNK_BYTES)

    with pytest.raises(FileStorageFull):
        other.write(bytes(16 * CHUNK_BYTES))
    with pytest.raises(FileStorageFull):
        FileWriter(database, store, _new(), max_stored_bytes=17 * CHUNK_BYTES)
