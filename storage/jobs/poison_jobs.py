"""Jobs that were lost with so many workers that one more would be the last: suspects, until they are seen to run."""

from sqlalchemy import Connection, exists, select, update

from storage.contract import JobStatus
from storage.database.table_definitions import table_of
from storage.jobs.tables import Job

_job = table_of(Job)


def suspect_from(max_lost_attempts: int) -> int:
    """The number of lost attempts from which a job is a suspect; one that was never lost is none."""
    return max(1, max_lost_attempts - 1)


def is_suspect(c: Connection, job_id: str, lost_from: int) -> bool:
    """Whether the job is queued and was lost so often."""
    is_it = exists().where(_job.c.id == job_id, _job.c.status == JobStatus.QUEUED, _job.c.lost_attempts >= lost_from)
    return bool(c.execute(select(is_it)).scalar())


def acquit(c: Connection, job_id: str, attempt: int) -> bool:
    """Whether the job's lost attempts are forgiven, because this attempt runs well where it was watched alone."""
    is_own = (_job.c.id == job_id, _job.c.attempt == attempt, _job.c.status == JobStatus.IN_PROGRESS)
    return c.execute(update(_job).where(*is_own).values(lost_attempts=0)).rowcount == 1
