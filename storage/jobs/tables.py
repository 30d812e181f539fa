"""Tables of jobs: the small row that is queried and updated, and its payload, which is written once."""

from datetime import datetime

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, String
from sqlalchemy.types import JSON
from sqlmodel import Field, SQLModel

from storage.contract import JobKind, JobStatus, PriorityQueue
from storage.database.columns import DatabaseNow, EnumText, UtcDateTime
from storage.database.table_definitions import partial_index

# Ends that are not `completed`. Only these are in an index by status, so that most jobs never pay for it.
RARE_ENDS = ("incomplete", "failed", "cancelled")


class Job(SQLModel, table=True):
    """A job's row: short columns only, so that a change of status writes little. Its payload is in the other tables.

    model:          name of the model that the request asked for
    served_model:   name of the model in whose queue the job waits
    attempt:        runs claimed so far; the fencing token of the running one
    worker_id:      the worker of the newest attempt; None while queued
    has_result:     whether `job_result` holds the result
    lost_attempts:  attempts whose worker died
    priority_queue: the priority queue of its tickets
    body_digest:    of owner, path and body of the request, by which a client's retry finds it; 16 bytes
    num_attached:   idempotent replays that attached to it
    expires_at:     when it fails unless it has ended
    cancel_at:      when it is cancelled unless it has ended
    webhook:        its own webhook target, as JSON values, with its secret
    retention_s:    seconds after `ended_at` at which the row is erased
    started_at:     when the newest attempt was claimed
    first_token_at: when the attempt that ended the job emitted its first token
    sent_at:        when its newest ticket was handed to the queue, by the database's clock
    project_id, key_id, batch_id, conversation_id: what the job belongs to; None where it belongs to none
    conversation_position: the first of the positions that its items have in its conversation
    continuation_id: jobs of an owner that have the same one run one after another
    traceparent:    W3C trace context of the request
    """

    __tablename__ = "job"

    id: str = Field(primary_key=True)
    owner: str
    project_id: str | None = None
    key_id: str | None = None
    kind: JobKind = Field(sa_column=Column(EnumText(JobKind), nullable=False))
    model: str
    served_model: str
    status: JobStatus = Field(sa_column=Column(EnumText(JobStatus), nullable=False))
    attempt: int = 0
    worker_id: str | None = None
    background: bool
    store: bool
    metadata_: dict[str, str] = Field(sa_column=Column("metadata", JSON, key="metadata_", nullable=False))
    has_result: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    lost_attempts: int = 0
    retention_s: int
    created_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    started_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    first_token_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    ended_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    sent_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False, default=DatabaseNow()))
    erase_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    priority_queue: PriorityQueue = Field(sa_column=Column(EnumText(PriorityQueue), nullable=False))
    body_digest: bytes | None = Field(default=None, sa_column=Column(LargeBinary))
    num_attached: int = Field(default=0, sa_column=Column(Integer, nullable=False))
    expires_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    cancel_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    webhook: dict[str, object] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    batch_id: str | None = None
    conversation_id: str | None = None
    conversation_position: int | None = Field(default=None, sa_column=Column(BigInteger))
    continuation_id: str | None = None
    traceparent: str | None = None

    # Partial indexes hold few rows: an ended job, as most are, is in none of the first two.
    __table_args__ = (
        # `owner` and `id` are in the index so that counts of queued jobs never read the rows.
        partial_index("ix_job_queued", "status = 'queued'", "served_model", "priority_queue", "sent_at", "owner", "id"),
        partial_index("ix_job_running", "status = 'in_progress'", "worker_id"),
        partial_index("ix_job_stored_chat", "kind = 'chat' AND store", "owner", "id"),
        partial_index("ix_job_stored_response", "kind = 'response' AND store", "owner", "id"),
        partial_index("ix_job_response_of_model", "kind = 'response' AND store", "owner", "model", "id"),
        partial_index(
            "ix_job_rare_response", f"kind = 'response' AND store AND status IN {RARE_ENDS}", "owner", "status", "id"
        ),
        partial_index("ix_job_erase_at", "erase_at IS NOT NULL", "erase_at"),
        partial_index("ix_job_expires_at", "expires_at IS NOT NULL AND ended_at IS NULL", "expires_at"),
        partial_index("ix_job_cancel_at", "cancel_at IS NOT NULL AND ended_at IS NULL", "cancel_at"),
        partial_index("ix_job_unsettled", "ended_at IS NOT NULL AND NOT has_result", "ended_at"),
        partial_index("ix_job_batch_id", "batch_id IS NOT NULL", "batch_id", "erase_at"),
        # Jobs of batches whose files are not written yet.
        partial_index("ix_job_kept", "erase_at IS NULL AND ended_at IS NOT NULL", "ended_at", "id"),
        partial_index("ix_job_body_digest", "body_digest IS NOT NULL", "body_digest"),
        Index("ix_job_created_at", "created_at"),
        partial_index(
            "ix_job_continuation",
            "continuation_id IS NOT NULL AND ended_at IS NULL",
            "owner",
            "continuation_id",
            "created_at",
            "id",
        ),
        # At most one open turn of a conversation.
        partial_index(
            "ix_job_open_turn", "conversation_id IS NOT NULL AND ended_at IS NULL", "conversation_id", is_unique=True
        ),
    )


class JobInput(SQLModel, table=True):
    """What a job was asked, written once with its row.

    It outlives the job's row while another job continues it (see `storage.jobs.erasing`).

    parent_id:    the job that this one continues; None where it continues none
    chain_bytes:  bytes of context of this job and of all that it continues; None for a job that cannot be continued
    spec_kind, spec_version: format of `spec`, see `storage.formats`
    request:      the accepted wire request, as JSON values
    context:      what the protocol computed at submission, as JSON values
    """

    __tablename__ = "job_input"

    job_id: str = Field(primary_key=True)
    parent_id: str | None = Field(default=None, sa_column=Column(String, ForeignKey("job_input.job_id")))
    chain_bytes: int | None = None
    spec_kind: str
    spec_version: int
    # Before what may be long: SQLite reads a row up to the column that is asked for, and a claim asks for the spec.
    spec: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    request: dict[str, object] = Field(sa_column=Column(JSON, nullable=False))
    context: dict[str, object] = Field(sa_column=Column(JSON, nullable=False))

    __table_args__ = (partial_index("ix_job_input_parent_id", "parent_id IS NOT NULL", "parent_id"),)


class JobResult(SQLModel, table=True):
    """What came of a job, written by its end. A job that was ended from outside gets its result a little later.

    result_kind, result_version: format of `result`, see `storage.formats`
    failure:      JSON values of Failure
    """

    __tablename__ = "job_result"

    job_id: str = Field(primary_key=True)
    result_kind: str
    result_version: int
    failure: dict[str, str] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    result: bytes | None = Field(default=None, sa_column=Column(LargeBinary))


class Attempt(SQLModel, table=True):
    """One ended attempt at a job; the running one is described by the job's row.

    number:  1 for the first
    outcome: status of the job that it ended, the code of its failure, `requeued` or `worker_lost`
    """

    __tablename__ = "attempt"

    job_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    worker_id: str | None = None
    claimed_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    first_token_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    ended_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    outcome: str
