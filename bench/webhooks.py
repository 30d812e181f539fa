"""What webhooks cost: the end of a job, a query beside a backlog, and the way of an event to a receiver.

`python -m bench.webhooks [--backlog 100000] [--postgres URL]`: SQLite in a temporary folder, unless a fresh PostgreSQL
database is named. The receiver is a bare server in this process, which shares the processors with the sender.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy import insert

from storage import ids
from storage.contract import JobKind, JobSpec, JobStatus, Result, SamplingParams, Usage
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.database.migration import migrate
from storage.database.table_definitions import table_of
from storage.jobs import jobs
from storage.jobs.records import NewJob
from storage.process import logging_setup
from storage.process.logging_setup import LogSettings
from storage.settings import StorageSettings
from storage.webhooks import delivery_queue, endpoints
from storage.webhooks.delivery_queue import Destination
from storage.webhooks.signing import new_secret
from storage.webhooks.tables import DeliveryStatus, WebhookDelivery
from workers.webhooks.sender_thread import SenderThread

SPEC = JobSpec(prompts=((1, 2, 3),), sampling=SamplingParams(max_tokens=8))
USAGE = Usage(prompt_tokens=3, completion_tokens=8)
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Receiver:
    """Answers everything, and notes when something came."""

    def __init__(self) -> None:
        self.came_at: list[float] = []
        self._came = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request and answer it."""
        await reader.readuntil(b"\r\n\r\n")
        self.came_at.append(time.monotonic())
        self._came.set()
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    async def wait_for(self, number: int) -> None:
        """Return when so many requests came."""
        while len(self.came_at) < number:
            self._came.clear()
            await self._came.wait()


def put_running(database: Database, owner: str, number: int) -> list[str]:
    """Ids of new jobs in progress."""
    now = datetime.now(UTC)
    with database.begin() as connection:
        new = [
            NewJob(
                job_id=ids.new_job_id(JobKind.RESPONSE),
                owner=owner,
                kind=JobKind.RESPONSE,
                model="bench",
                background=True,
                store=True,
                request={},
                context={},
                metadata={},
                spec=SPEC,
                created_at=now,
            )
            for _ in range(number)
        ]
        for rows in zip(*(jobs.rows_of(one, 600) for one in new), strict=True):
            connection.execute(insert(table_of(rows[0][0])), [values for _, values in rows])
        for one in new:
            jobs.claim(connection, one.job_id, "w", now)
    return [one.job_id for one in new]


def put_endpoint(database: Database, owner: str, url: str) -> str:
    """The id of a new endpoint that receives every event."""
    endpoint_id = ids.new_id("we_")
    with database.begin() as connection:
        endpoints.create_endpoint(
            connection,
            endpoint_id=endpoint_id,
            owner=owner,
            name="bench",
            url=url,
            event_types=[],
            secret=new_secret(),
            now=datetime.now(UTC),
        )
    return endpoint_id


def finish(database: Database, job_ids: list[str]) -> float:
    """Seconds a job of ending them all in one transaction, without its commit."""
    now = datetime.now(UTC)
    with database.begin() as connection:
        started = time.perf_counter()
        for job_id in job_ids:
            jobs.complete(connection, job_id, 1, status=JobStatus.COMPLETED, result=Result(), usage=USAGE, now=now)
        return (time.perf_counter() - started) / len(job_ids)


def put_backlog(database: Database, endpoint_id: str, number: int) -> None:
    """Due deliveries of one endpoint."""
    now = datetime.now(UTC)
    rows = [
        {
            "id": f"dlv_{index:09d}",
            "event_id": f"evt_{index}",
            "owner": "busy",
            "endpoint_id": endpoint_id,
            "job_id": f"resp_{index}",
            "type": "response.completed",
            "url": "https://busy.example/",
            "host": "busy.example",
            "status": DeliveryStatus.PENDING,
            "num_attempts": 0,
            "num_attempts_before": 0,
            "next_attempt_at": now,
            "created_at": now,
        }
        for index in range(number)
    ]
    with database.begin() as connection:
        for start in range(0, number, 5000):
            connection.execute(insert(table_of(WebhookDelivery)), rows[start : start + 5000])


def poll(database: Database) -> int:
    """The number of destinations with due deliveries."""
    with database.connect() as connection:
        return len(delivery_queue.list_due_destinations(connection, datetime.now(UTC)))


def claim(database: Database) -> int:
    """The number of deliveries of the busy line that are ours now."""
    now = datetime.now(UTC)
    with database.begin() as connection:
        until = datetime(2099, 1, 1, tzinfo=UTC)
        return len(
            delivery_queue.claim(connection, Destination(owner="busy", host="busy.example"), now, until, limit=4)
        )


def best_of(number: int, measure: Callable[[], float | int]) -> float:
    """The shortest of some runs, in seconds."""
    times = []
    for _ in range(number):
        started = time.perf_counter()
        measure()
        times.append(time.perf_counter() - started)
    return min(times)


async def deliver(database: Database, receiver: Receiver, port: int) -> tuple[list[float], float, float]:
    """Seconds from the end of a job to its event, one after another; events a second to one host, and to 16."""
    put_endpoint(database, "one", f"http://127.0.0.1:{port}/")
    delays = []
    for number in range(20):
        [job_id] = await asyncio.to_thread(put_running, database, "one", 1)
        await asyncio.to_thread(finish, database, [job_id])
        ended_at = time.monotonic()
        await receiver.wait_for(number + 1)
        delays.append(receiver.came_at[-1] - ended_at)
        # Not in step with the sender's looks.
        await asyncio.sleep(0.07 * (number % 5))
    for host in range(1, 17):
        put_endpoint(database, "many", f"http://127.0.0.{host}:{port}/")
    rates = []
    for owner, num_jobs, num_events in (("one", 500, 500), ("many", 100, 1600)):
        job_ids = await asyncio.to_thread(put_running, database, owner, num_jobs)
        before = len(receiver.came_at)
        await asyncio.to_thread(finish, database, job_ids)
        started = time.monotonic()
        await receiver.wait_for(before + num_events)
        rates.append(num_events / (time.monotonic() - started))
    return delays, rates[0], rates[1]


async def whole_way(url: str) -> tuple[list[float], float, float]:
    """As `deliver`, with a sender and a receiver that run."""
    database = Database(url)
    settings = StorageSettings(database_url=url, redis_url="unix:///none", webhook_loopback=True)
    writer, receiver = Writer(database), Receiver()
    thread = SenderThread(settings, database, writer)
    server = await asyncio.start_server(receiver.serve, "0.0.0.0", 0, backlog=512)
    writer.start()
    thread.start()
    try:
        return await deliver(database, receiver, server.sockets[0].getsockname()[1])
    finally:
        await asyncio.to_thread(thread.stop, 10)
        writer.stop()
        server.close()
        database.dispose()


def measure(url: str, backlog: int) -> Table:
    """Everything, in a fresh database."""
    migrate(url)
    database = Database(url)
    table = Table("", "", title=url.partition(":")[0])
    delays, to_one, to_many = asyncio.run(whole_way(url))
    table.add_row(
        "end of a job to its first attempt, p50 / max", f"{statistics.median(delays):.2f} / {max(delays):.2f} s"
    )
    table.add_row("events to one host", f"{to_one:.0f}/s")
    table.add_row("events to 16 hosts", f"{to_many:.0f}/s")
    put_endpoint(database, "response", "https://response.example/")
    for owner, words in (("unheard", "nobody listens"), ("response", "somebody listens")):
        cost = min(finish(database, put_running(database, owner, 500)) for _ in range(5))
        table.add_row(f"end of a job, {words}", f"{cost * 1e6:.0f} us")
    put_backlog(database, put_endpoint(database, "busy", "https://busy.example/"), backlog)
    table.add_row(f"due, beside {backlog} of one destination", f"{best_of(5, lambda: poll(database)) * 1e3:.1f} ms")
    table.add_row("claim 4 of them, committed", f"{best_of(5, lambda: claim(database)) * 1e3:.1f} ms")
    database.dispose()
    return table


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backlog", type=int, default=100_000)
    parser.add_argument("--postgres", default="")
    arguments = parser.parse_args()
    logging_setup.configure(LogSettings(log_level="ERROR"))
    with tempfile.TemporaryDirectory(prefix="tokenpost-bench-") as folder:
        url = arguments.postgres or f"sqlite:///{Path(folder) / 'bench.db'}"
        Console().print(measure(url, arguments.backlog))


if __name__ == "__main__":
    main()
