"""The tables of batches: a row for each, and one for each line of its input file."""

from datetime import datetime

from sqlalchemy import BigInteger, Column, Index, Integer, UniqueConstraint
from sqlalchemy.types import JSON
from sqlmodel import Field, SQLModel

from storage.batches.batch_states import BatchStatus, LineStatus
from storage.database.columns import EnumText, UtcDateTime
from storage.database.table_definitions import partial_index


class Batch(SQLModel, table=True):
    """A batch. Times are None until what they tell has happened.

    endpoint:      path of the create calls that its lines are
    priority:      of its jobs
    retry_of:      the batch whose lines without success it takes; None for one that reads its input file
    models:        names of the models in its lines
    errors:        faults of its lines, as its `errors` tells them; None until there is one
    input_bytes:   size of its input file
    num_lines:     lines that were validated so far
    num_completed: lines in its output file; None until it has ended
    cursor_offset, cursor_line: where validation goes on: bytes and physical lines that were read
    output_expires_after_s: how long the files of its results are kept
    usage:         sums of tokens by their names in a Responses object, set when all lines have ended
    erase_at:      when its rows are erased; set once nothing is left to do for the ended batch
    """

    __tablename__ = "batch"

    id: str = Field(primary_key=True)
    owner: str
    key_id: str | None = None
    endpoint: str
    status: BatchStatus = Field(sa_column=Column(EnumText(BatchStatus), nullable=False))
    completion_window: str
    priority: int
    input_file_id: str
    output_file_id: str | None = None
    error_file_id: str | None = None
    retry_of: str | None = None
    metadata_: dict[str, str] | None = Field(default=None, sa_column=Column("metadata", JSON, key="metadata_"))
    models: list[str] = Field(sa_column=Column(JSON, nullable=False))
    errors: list[dict[str, object]] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    input_bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    num_lines: int = 0
    num_completed: int | None = None
    cursor_offset: int = Field(sa_column=Column(BigInteger, nullable=False))
    cursor_line: int = 0
    output_expires_after_s: int | None = None
    usage: dict[str, int] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    created_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    expires_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    in_progress_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    finalizing_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    completed_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    failed_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    expired_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    cancelling_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    cancelled_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    erase_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))

    __table_args__ = (
        Index("ix_batch_owner", "owner", "id"),
        # Few rows: those for which something is left to do.
        partial_index("ix_batch_open", "erase_at IS NULL", "priority", "id"),
        partial_index("ix_batch_erase_at", "erase_at IS NOT NULL", "erase_at"),
    )


class BatchLine(SQLModel, table=True):
    """A line of a batch.

    line:          number of the physical line, from 1
    position:      its place in the order in which lines become jobs
    model:         that its body names; empty where it names none in a readable way
    offset, length: of its bytes in the input file
    job_id:        of the job that it became
    status_code:   of its HTTP answer; None without one
    error:         `{code, message}` where it had no answer, else the body's `error` of a refusal
    """

    __tablename__ = "batch_line"

    batch_id: str = Field(primary_key=True)
    line: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    custom_id: str
    position: int
    model: str
    offset: int = Field(sa_column=Column(BigInteger, nullable=False))
    length: int
    status: LineStatus = Field(sa_column=Column(EnumText(LineStatus), nullable=False))
    job_id: str | None = None
    status_code: int | None = None
    error: dict[str, object] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))

    __table_args__ = (
        UniqueConstraint("batch_id", "custom_id", name="uq_batch_line_custom_id"),
        # Counts by status, and the next lines of each model, without reading the rows of the others.
        Index("ix_batch_line_next", "batch_id", "status", "model", "position"),
        partial_index("ix_batch_line_job_id", "job_id IS NOT NULL", "job_id"),
    )
