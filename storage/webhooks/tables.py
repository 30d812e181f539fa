"""The tables of webhooks: endpoints, secrets, events, deliveries and delivery attempts."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Column, Index, text
from sqlalchemy.types import JSON
from sqlmodel import Field, SQLModel

from storage.database.columns import EnumText, UtcDateTime


class DeliveryStatus(StrEnum):
    """Status of a delivery: pending, delivered, or dead after the last failed attempt."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class WebhookEndpoint(SQLModel, table=True):
    """A URL that receives the webhook events of an owner's jobs.

    event_types:      event types it receives; empty means all
    secret:           what its events are signed with, as `whsec_...`
    old_secret:       the one before; it signs too until `old_secret_until`
    failing_since:    when the first of its attempts failed since the last that did not
    disabled_reason:  in words, for its owner
    """

    __tablename__ = "webhook_endpoint"

    id: str = Field(primary_key=True)
    owner: str = Field(index=True)
    name: str
    url: str
    event_types: list[str] = Field(sa_column=Column(JSON, nullable=False))
    secret: str
    old_secret: str | None = None
    old_secret_until: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    failing_since: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    disabled_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    disabled_reason: str | None = None
    created_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    updated_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))


class WebhookSecret(SQLModel, table=True):
    """An owner's default secret; it signs the events of jobs whose target has no secret of its own."""

    __tablename__ = "webhook_secret"

    owner: str = Field(primary_key=True)
    secret: str
    created_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))


class WebhookEvent(SQLModel, table=True):
    """A webhook event: the end of one job or batch, inserted in the transaction that ends it.

    job_id:        of the job, or of the batch
    target:        the job's own target, as in `storage.jobs.tables.Job.webhook`; None once it is fanned out
    is_fanned_out: whether its deliveries exist
    """

    __tablename__ = "webhook_event"

    id: str = Field(primary_key=True)
    owner: str
    type: str
    job_id: str = Field(index=True)
    created_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False, index=True))
    target: dict[str, object] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    is_fanned_out: bool = False

    __table_args__ = (
        Index(
            "ix_webhook_event_new",
            "created_at",
            sqlite_where=text("NOT is_fanned_out"),
            postgresql_where=text("NOT is_fanned_out"),
        ),
    )


def _pending_index(name: str, *columns: str) -> Index:
    is_pending = text("status = 'pending'")
    return Index(name, *columns, sqlite_where=is_pending, postgresql_where=is_pending)


class WebhookDelivery(SQLModel, table=True):
    """One webhook event for one receiver.

    endpoint_id:         None for a job's own target, whose `url` and `secret` are then the delivery's
    job_id:              None for a test
    host:                of the URL, with its port if it has one; owner and host are the destination
    num_attempts:        attempts started
    num_attempts_before: of these, attempts before the last redelivery; the retry schedule counts from there
    next_attempt_at:     when it is due; a claim moves it ahead by the lease
    created_at:          of its event
    """

    __tablename__ = "webhook_delivery"

    id: str = Field(primary_key=True)
    event_id: str = Field(index=True)
    owner: str
    endpoint_id: str | None = None
    job_id: str | None = Field(default=None, index=True)
    type: str
    url: str
    host: str
    secret: str | None = None
    status: DeliveryStatus = Field(sa_column=Column(EnumText(DeliveryStatus), nullable=False))
    num_attempts: int = 0
    num_attempts_before: int = 0
    next_attempt_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False, index=True))
    ended_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))

    __table_args__ = (
        Index("ix_webhook_delivery_endpoint", "endpoint_id", "id"),
        # So that the few that are dead are not looked for among all that were delivered.
        Index("ix_webhook_delivery_endpoint_status", "endpoint_id", "status", "id"),
        # Due deliveries overall, and of each destination. With the status in the index SQLite reads no rows.
        _pending_index("ix_webhook_delivery_due", "next_attempt_at", "owner", "host", "status"),
        _pending_index("ix_webhook_delivery_line", "owner", "host", "next_attempt_at", "status"),
    )


class WebhookAttempt(SQLModel, table=True):
    """One attempt of one delivery.

    status_code: None when no answer came
    error:       why there was no answer, or why the answer is a failure
    answer:      the first 2 kB of the answer's text
    """

    __tablename__ = "webhook_attempt"

    delivery_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    started_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    latency_ms: int
    status_code: int | None = None
    error: str | None = None
    answer: str | None = None
