"""All queries about files. Content in the database is written and read in chunks, each in a short transaction."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import Connection, and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from storage.database.table_definitions import table_of
from storage.errors import FileInUse, FileNotFound, FileStorageFull, UploadInterrupted
from storage.files.tables import File, FileChunk, FileHold, FilePurpose
from storage.ids import is_public_id

# A commit of this size takes a few milliseconds, and a file of 200 MB has 200 of them.
CHUNK_BYTES = 2**20
# A file that has not grown for so long without being finished is given up. The slowest upload that the server accepts
# sends a chunk in seconds.
UNFINISHED_FOR = timedelta(hours=1)
# Every file has a row, even where it is empty.
MAX_FILES_PER_OWNER = 100_000
# A page of a list has at most this many.
MAX_PAGE = 10_000

_file = table_of(File)
_chunk = table_of(FileChunk)
_hold = table_of(FileHold)
_IS_HELD = exists().where(_hold.c.file_id == _file.c.id)


class NewFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is about to be written; `expires_at` None keeps it until it is deleted."""

    file_id: str
    owner: str
    purpose: FilePurpose
    filename: str
    created_at: datetime
    expires_at: datetime | None = None


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A finished file, without its content."""

    id: str
    owner: str
    purpose: FilePurpose
    filename: str
    size_bytes: int
    created_at: datetime
    expires_at: datetime | None


_COLUMNS = [_file.c[name] for name in StoredFile.__struct_fields__]


def create(c: Connection, new: NewFile) -> None:
    """Begin a file: its row, without content. Nobody sees it before `finish`."""
    values = msgspec.structs.asdict(new)
    c.execute(insert(_file).values(id=values.pop("file_id"), size_bytes=0, written_at=new.created_at, **values))


def grow(c: Connection, file_id: str, number: int, num_bytes: int, now: datetime) -> None:
    """Count the next chunk of an unfinished file, wherever its content goes.

    UploadInterrupted when the file was given up, or when another writer was faster: chunks come in order, each once.
    """
    is_next = and_(_is_unfinished(file_id), _file.c.size_bytes == number * CHUNK_BYTES)
    growing = update(_file).where(is_next).values(size_bytes=_file.c.size_bytes + num_bytes, written_at=now)
    if c.execute(growing).rowcount != 1:
        raise _interrupted(file_id)


def append_chunk(c: Connection, file_id: str, number: int, data: bytes, now: datetime) -> None:
    """Write the next chunk of an unfinished file; raises as `grow`.

    data: CHUNK_BYTES, or less for the last chunk
    """
    grow(c, file_id, number, len(data), now)
    c.execute(insert(_chunk).values(file_id=file_id, number=number, data=data))


def describe(c: Connection, file_id: str, purpose: FilePurpose, expires_at: datetime | None) -> None:
    """Set what was not known when the file began; UploadInterrupted when it was given up."""
    describing = update(_file).where(_is_unfinished(file_id)).values(purpose=purpose, expires_at=expires_at)
    if c.execute(describing).rowcount != 1:
        raise _interrupted(file_id)


def finish(c: Connection, file_id: str, now: datetime) -> StoredFile:
    """The file, which is complete and seen from now on; UploadInterrupted when it was given up."""
    finishing = update(_file).where(_is_unfinished(file_id)).values(finished_at=now).returning(*_COLUMNS)
    row = c.execute(finishing).first()
    if row is None:
        raise _interrupted(file_id)
    return StoredFile(**row._mapping)


def keep_unfinished(c: Connection, file_ids: Collection[str], now: datetime) -> None:
    """Let these unfinished files, which do not grow at the moment, be kept as if they had grown now."""
    is_unfinished = and_(_file.c.finished_at.is_(None), _file.c.deleted_at.is_(None))
    c.execute(update(_file).where(_file.c.id.in_(file_ids), is_unfinished).values(written_at=now))


def give_up(c: Connection, file_id: str, now: datetime) -> None:
    """Leave an unfinished file to be erased; nothing where it is finished or given up already."""
    c.execute(update(_file).where(_is_unfinished(file_id)).values(deleted_at=now))


def get(c: Connection, file_id: str, owner: str, now: datetime, *, param: str | None = None) -> StoredFile:
    """The owner's file; FileNotFound, with that `param`, when absent, expired, not finished or another owner's."""
    query = select(*_COLUMNS).where(_file.c.id == file_id, *_is_seen(owner, now))
    row = c.execute(query).first() if is_public_id(file_id) else None
    if row is None:
        raise _not_found(file_id, param)
    return StoredFile(**row._mapping)


def list_files(
    c: Connection,
    owner: str,
    now: datetime,
    *,
    after: str | None = None,
    limit: int = MAX_PAGE,
    is_newest_first: bool = True,
    purpose: FilePurpose | None = None,
) -> list[StoredFile]:
    """The owner's files, by age.

    after: pagination cursor: the id of the last file of the page before
    """
    query = select(*_COLUMNS).where(*_is_seen(owner, now))
    if purpose is not None:
        query = query.where(_file.c.purpose == purpose)
    if after is not None:
        if not is_public_id(after):
            return []
        query = query.where(_file.c.id < after if is_newest_first else _file.c.id > after)
    query = query.order_by(_file.c.id.desc() if is_newest_first else _file.c.id).limit(limit)
    return [StoredFile(**row._mapping) for row in c.execute(query)]


def delete_file(c: Connection, file_id: str, owner: str, now: datetime) -> None:
    """Delete the owner's file; raises FileNotFound as `get`, and FileInUse while something reads it."""
    get(c, file_id, owner, now)
    _lock(c, file_id)
    if c.execute(select(_hold.c.holder_id).where(_hold.c.file_id == file_id).limit(1)).first() is not None:
        raise FileInUse(f"File '{file_id}' is still being read. Delete it when that has ended.")
    c.execute(update(_file).where(_file.c.id == file_id, _file.c.deleted_at.is_(None)).values(deleted_at=now))


def hold(
    c: Connection, file_id: str, owner: str, holder_id: str, now: datetime, *, param: str | None = None
) -> StoredFile:
    """The owner's file, which stays until `release`, even where it expires; FileNotFound as `get`.

    Call it in the transaction that writes the row of the holder.
    """
    _lock(c, file_id)
    found = get(c, file_id, owner, now, param=param)
    c.execute(insert(_hold).values(file_id=file_id, holder_id=holder_id))
    return found


def release(c: Connection, holder_id: str) -> None:
    """Free what the holder held."""
    c.execute(delete(_hold).where(_hold.c.holder_id == holder_id))


def refuse_beyond(c: Connection, owner: str, max_bytes: int) -> None:
    """Raise FileStorageFull when the owner's files hold more bytes, or are more than MAX_FILES_PER_OWNER.

    Unfinished files count, and deleted ones until they are erased.
    """
    query = select(func.count(), func.coalesce(func.sum(_file.c.size_bytes), 0)).where(_file.c.owner == owner)
    num_files, num_bytes = c.execute(query).one()
    if num_bytes > max_bytes:
        raise FileStorageFull(f"Your files hold {num_bytes} bytes; at most {max_bytes} are stored. Delete some first.")
    if num_files >= MAX_FILES_PER_OWNER:
        raise FileStorageFull(f"You have {num_files} files, which is the limit. Delete some first.")


def read_range(c: Connection, file_id: str, start: int, length: int) -> bytes:
    """Bytes `start` to `start + length` of content in the database; FileNotFound when any of them is not there.

    It does not ask who may see the file: what holds a file reads it after its expiry too.

    length: at most CHUNK_BYTES
    """
    assert 0 < length <= CHUNK_BYTES, "a read is bounded"
    first, last = start // CHUNK_BYTES, (start + length - 1) // CHUNK_BYTES
    query = select(_chunk.c.data).where(_chunk.c.file_id == file_id, _chunk.c.number.between(first, last))
    pieces = c.execute(query.order_by(_chunk.c.number)).scalars().all()
    offset = start - first * CHUNK_BYTES
    found = b"".join(pieces)[offset : offset + length]
    if len(found) != length:
        raise _not_found(file_id)
    return found


def list_ended(c: Connection, now: datetime, limit: int) -> Sequence[str]:
    """Ids of files that nobody needs any more: expired and not held, or given up by whoever wrote them."""
    # Two queries, each with its index: for both conditions together SQLite reads all files.
    queries = [select(_file.c.id).where(one).limit(limit) for one in (_is_expired(now), _is_given_up(now))]
    return [file_id for query in queries for file_id in c.execute(query).scalars()][:limit]


def mark_ended(c: Connection, file_ids: Sequence[str], now: datetime) -> None:
    """Leave those of these files that nobody needs, see `list_ended`, to be erased."""
    is_ended = or_(_is_expired(now), _is_given_up(now))
    c.execute(update(_file).where(_file.c.id.in_(file_ids), is_ended).values(deleted_at=now))


def find_deleted(c: Connection) -> str | None:
    """The id of a file that is to be erased."""
    query = select(_file.c.id).where(_file.c.deleted_at.is_not(None)).order_by(_file.c.deleted_at).limit(1)
    return c.execute(query).scalar()


def erase_chunks(c: Connection, file_id: str, limit: int) -> bool:
    """Erase the first chunks of a deleted file; whether more may be left."""
    query = select(_chunk.c.number).where(_chunk.c.file_id == file_id).order_by(_chunk.c.number).limit(limit)
    numbers = c.execute(query).scalars().all()
    if numbers:
        c.execute(delete(_chunk).where(_chunk.c.file_id == file_id, _chunk.c.number.in_(numbers)))
    return len(numbers) == limit


def erase_row(c: Connection, file_id: str) -> None:
    """Erase the row of a deleted file, once its content is gone."""
    c.execute(delete(_file).where(_file.c.id == file_id, _file.c.deleted_at.is_not(None)))


def _is_seen(owner: str, now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        _file.c.owner == owner,
        _file.c.finished_at.is_not(None),
        _file.c.deleted_at.is_(None),
        or_(_file.c.expires_at.is_(None), _file.c.expires_at > now),
    )


def _is_expired(now: datetime) -> ColumnElement[bool]:
    return and_(_file.c.deleted_at.is_(None), _file.c.expires_at <= now, _file.c.finished_at.is_not(None), ~_IS_HELD)


def _is_given_up(now: datetime) -> ColumnElement[bool]:
    return and_(_file.c.deleted_at.is_(None), _file.c.finished_at.is_(None), _file.c.written_at < now - UNFINISHED_FOR)


def _is_unfinished(file_id: str) -> ColumnElement[bool]:
    return and_(_file.c.id == file_id, _file.c.finished_at.is_(None), _file.c.deleted_at.is_(None))


def _lock(c: Connection, file_id: str) -> None:
    """Let one transaction at a time decide whether the file stays. SQLite has one writer anyway."""
    if c.dialect.name != "sqlite" and is_public_id(file_id):
        c.execute(select(_file.c.id).where(_file.c.id == file_id).with_for_update())


def _not_found(file_id: str, param: str | None = None) -> FileNotFound:
    return FileNotFound(f"No file with id '{file_id[:100]}'.", param=param)


def _interrupted(file_id: str) -> UploadInterrupted:
    return UploadInterrupted(f"The upload of file '{file_id}' was given up. Please send it again.")
