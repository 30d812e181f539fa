"""Who hangs up stops the engine, seen from outside."""

import json
import socket
import time

import pytest

from api.cli.home import Home
from storage.contract import JobStatus
from storage.database.connections import Database
from storage.jobs import jobs
from storage.jobs.records import JobRecord
from tests.e2e.platform import Platform
from tests.waiting import wait_until

PATH = "/v1/chat/completions"
# As long as the context, so that nothing but the caller's leaving ends it.
ENDLESS = {
    "model": "demo",
    "messages": [{"role": "user", "content": "Tell me a story about a hen."}],
    "max_completion_tokens": 3900,
    "ignore_eos": True,
}


def _newest(database: Database) -> JobRecord | None:
    with database.connect() as connection:
        return next(iter(jobs.list_all(connection)), None)


def _hang_up_on_a_running_job(platform: Platform, database: Database, body: bytes) -> None:
    before = _newest(database)
    with socket.create_connection(("127.0.0.1", platform.port)) as caller:
        head = f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        caller.sendall(head.encode() + b"content-length: %d\r\n\r\n%b" % (len(body), body))

        def runs() -> bool:
            job = _newest(database)
            return job is not None and (before is None or job.id != before.id) and job.status is JobStatus.IN_PROGRESS

        wait_until(runs, 30.0, "the job's start")


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "blocking"])
def test_who_hangs_up_stops_the_engine_within_a_second(platform: Platform, *, is_stream: bool) -> None:
    database = Database(Home(path=platform.home).database_url)
    try:
        _hang_up_on_a_running_job(platform, database, json.dumps({**ENDLESS, "stream": is_stream}).encode())
        left_at = time.monotonic()

        # The worker stores what came of a cancelled job when its sequence has left the engine.
        job = wait_until(lambda: _settled(database), 10.0, "the partial result")
        took_s = time.monotonic() - left_at
    finally:
        database.dispose()

    assert job.status is JobStatus.CANCELLED
    assert took_s < 1.0
    # As the worker's next beat tells it.
    wait_until(lambda: _num_running(platform) == 0, 10.0, "an idle engine")


def _settled(database: Database) -> JobRecord | None:
    job = _newest(database)
    return job if job is not None and job.completion_tokens is not None else None


def _num_running(platform: Platform) -> int:
    [worker] = [one for one in platform.command("ps") if one["role"] == "generation worker"]
    return int(worker["running"])
