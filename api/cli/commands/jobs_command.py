"""`tokenpost jobs`: list, show, cancel and follow jobs of every owner."""

from datetime import datetime
from typing import Annotated

import msgspec
import typer

from api.cli.commands.tail import follow
from api.cli.console import age, print_error, print_fields, print_json, print_line, print_table, utc_now
from api.cli.open_database import location_of, opened, opened_redis, writing
from api.cli.options import DatabaseOption, HomeOption, JsonOption, RedisOption
from storage.contract import JobStatus
from storage.errors import JobConflict, JobNotFound
from storage.jobs import cancellation, jobs
from storage.jobs.attempts import list_attempts
from storage.jobs.records import JobRecord
from storage.jobs.tables import Attempt

app = typer.Typer(no_args_is_help=True, help="List, show, cancel and follow jobs.")

_IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as in x-job-id.", show_default=False)]


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job for operators, without its texts."""

    id: str
    status: JobStatus
    kind: str
    model: str
    served_model: str
    owner: str
    background: bool
    store: bool
    attempt: int
    lost_attempts: int
    worker_id: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    failure: dict[str, str] | None
    created_at: datetime
    started_at: datetime | None
    first_token_at: datetime | None
    ended_at: datetime | None
    erase_at: datetime | None


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One ended attempt at a job; fields as in `storage.jobs.tables.Attempt`."""

    number: int
    worker_id: str | None
    claimed_at: datetime | None
    first_token_at: datetime | None
    ended_at: datetime
    outcome: str


class JobTimeline(JobView, frozen=True, kw_only=True):
    """A job with its ended attempts; the running one is described by the job itself."""

    attempts: list[AttemptView]


@app.command("list")
def list_jobs(
    status: Annotated[JobStatus | None, typer.Option(metavar="STATUS", help="Only jobs of this status.")] = None,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Only jobs of this model.")] = None,
    owner: Annotated[str | None, typer.Option(metavar="NAME", help="Only jobs of this owner.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=10_000, help="At most so many.")] = 50,
    home: HomeOption = None,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, the newest first."""
    with opened(location_of(home, database_url)) as database, database.connect() as connection:
        found = jobs.list_all(connection, status=status, model=model, owner=owner, limit=limit)
    if as_json:
        print_json([_view(job) for job in found])
        return
    now = utc_now()
    rows = [
        (job.id, job.status, job.model, job.owner, age(job.created_at, now), job.completion_tokens) for job in found
    ]
    print_table(("ID", "STATUS", "MODEL", "OWNER", "AGE", "TOKENS"), rows, empty="There are no such jobs.")


@app.command("show")
def show(
    job_id: _IdArgument,
    home: HomeOption = None,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a job and its attempts, without its text (see `tail`)."""
    with opened(location_of(home, database_url)) as database, database.connect() as connection:
        view = _view(_found(jobs.find_summary(connection, job_id), job_id))
        attempts = [_attempt_view(one) for one in list_attempts(connection, job_id)]
    fields = msgspec.structs.asdict(view)
    if as_json:
        print_json(JobTimeline(**fields, attempts=attempts))
        return
    print_fields(fields)
    if attempts:
        print_line("")
        print_table(
            ("ATTEMPT", "WORKER", "CLAIMED", "FIRST TOKEN", "ENDED", "OUTCOME"),
            [tuple(msgspec.structs.astuple(one)) for one in attempts],
            empty="",
        )


@app.command("cancel")
def cancel(
    job_id: _IdArgument,
    home: HomeOption = None,
    database_url: DatabaseOption = None,
    redis_url: RedisOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cancel a queued or running job."""
    location = location_of(home, database_url, redis_url)
    with opened(location) as database, opened_redis(location) as redis:
        cancelled = cancellation.cancel(writing(database), redis, job_id, utc_now())
        if cancelled is None:
            with database.connect() as connection:
                job = _found(jobs.find_summary(connection, job_id), job_id)
            raise JobConflict(f"job {job_id} has already ended: {job.status}")
    if as_json:
        print_json({"id": job_id, "status": JobStatus.CANCELLED, "was": cancelled.was})
    else:
        print_line(f"Cancelled; it was {cancelled.was}.")


@app.command("tail")
def tail(
    job_id: _IdArgument,
    home: HomeOption = None,
    database_url: DatabaseOption = None,
    redis_url: RedisOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a job's text from its start, live to its end.

    With --json, one log entry a line.
    """
    location = location_of(home, database_url, redis_url)
    with opened(location) as database, opened_redis(location) as redis:
        end = follow(database, redis, job_id, as_json=as_json)
    if not as_json:
        usage = f", {end.usage.prompt_tokens} + {end.usage.completion_tokens} tokens" if end.usage else ""
        print_error(f"{end.failure.message if end.failure else end.status}{usage}")
    if end.status in (JobStatus.FAILED, JobStatus.CANCELLED):
        raise typer.Exit(1)


def _found(job: JobRecord | None, job_id: str) -> JobRecord:
    if job is None:
        raise JobNotFound(f"there is no job {job_id}; it may have been erased")
    return job


def _view(job: JobRecord) -> JobView:
    return JobView(**{name: getattr(job, name) for name in JobView.__struct_fields__})


def _attempt_view(attempt: Attempt) -> AttemptView:
    return AttemptView(**{name: getattr(attempt, name) for name in AttemptView.__struct_fields__})
