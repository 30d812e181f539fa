"""Webhook event types, in OpenAI's words where it has some; pure."""

from storage.contract import JobKind, JobStatus

ENDS = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.INCOMPLETE, JobStatus.CANCELLED)


def event_type_of(kind: JobKind, end: JobStatus) -> str:
    """The type of the event of a job of this kind that ended so."""
    return f"{kind.noun}.{end}"


def event_types_of(kind: JobKind) -> tuple[str, ...]:
    """All event types of a job of this kind."""
    return tuple(event_type_of(kind, end) for end in ENDS)


BATCH_EVENT_TYPES = ("batch.completed", "batch.failed", "batch.expired", "batch.cancelled")
EVENT_TYPES = (
    *(name for kind in JobKind for name in event_types_of(kind)),
    *BATCH_EVENT_TYPES,
)
