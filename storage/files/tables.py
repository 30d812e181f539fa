"""The tables of files: a row for each, its content in chunks, and what still reads it."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, Column, Index, LargeBinary
from sqlmodel import Field, SQLModel

from storage.database.columns import EnumText, UtcDateTime
from storage.database.table_definitions import partial_index


class FilePurpose(StrEnum):
    """What a file is for, in OpenAI's words. Batches write files of the purpose `batch_output`."""

    BATCH = "batch"
    USER_DATA = "user_data"
    VISION = "vision"
    BATCH_OUTPUT = "batch_output"


class File(SQLModel, table=True):
    """A file. Callers see it from `finished_at` until `expires_at` or `deleted_at`.

    size_bytes:  bytes of content written so far
    written_at:  when the last chunk was written; a file that grows no more without being finished is given up
    finished_at: when its content was complete
    deleted_at:  since when nobody sees it; maintenance erases its content, then its row
    """

    __tablename__ = "file"

    id: str = Field(primary_key=True)
    owner: str
    purpose: FilePurpose = Field(sa_column=Column(EnumText(FilePurpose), nullable=False))
    filename: str
    size_bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    written_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    finished_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    expires_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    deleted_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))

    __table_args__ = (
        Index("ix_file_owner", "owner", "id"),
        partial_index("ix_file_expires_at", "expires_at IS NOT NULL AND deleted_at IS NULL", "expires_at"),
        partial_index("ix_file_unfinished", "finished_at IS NULL AND deleted_at IS NULL", "written_at"),
        partial_index("ix_file_deleted_at", "deleted_at IS NOT NULL", "deleted_at"),
    )


class FileChunk(SQLModel, table=True):
    """A part of a file's content, where the database holds it.

    number: from 0; every chunk but the last has `storage.files.stored_files.CHUNK_BYTES`
    """

    __tablename__ = "file_chunk"

    file_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    data: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class FileHold(SQLModel, table=True):
    """Something that still reads a file, which is neither deleted nor erased until then.

    holder_id: what reads it, such as a batch
    """

    __tablename__ = "file_hold"

    file_id: str = Field(primary_key=True)
    holder_id: str = Field(primary_key=True, index=True)
