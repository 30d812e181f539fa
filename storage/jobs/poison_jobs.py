"""Poison-job isolation: jobs whose workers died so often that the next loss would fail them run alone first."""

from sqlalchemy import Connection, exists, select, update

from storage.contract import JobStatus
from storage.database.table_definitions import table_of
from storage.jobs.tables import Job

_job = table_of(Job)


def isolation_threshold(max_lost_attempts: int) -> int:
    """The number of lost attempts from which a job is isolated; at least one."""
    return max(1, max_lost_attempts - 1)


def needs_isolation(c: Connection, job_id: str, lost_from: int) -> bool:
    """Whether the job is queued and has lost at least `lost_from` attempts."""
    is_it = exists().where(_job.c.id == job_id, _job.c.status == JobStatus.QUEUED, _job.c.lost_attempts >= lost_from)
    return bool(c.execute(select(is_it)).scalar())


def clear_lost_attempts(c: Connection, job_id: str, attempt: int) -> bool:
    """Whether the count of lost attempts was reset, because this attempt ran well in isolation and still runs."""
    is_own = (_job.c.id == job_id, _job.c.attempt == attempt, _job.c.status == JobStatus.IN_PROGRESS)
    return c.execute(update(_job).where(*is_own).values(lost_attempts=0)).rowcount == 1
