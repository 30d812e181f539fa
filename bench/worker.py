"""What a generation worker costs around its engine: latencies of one job, tokens a second of many, with a fake model.

`python -m bench.worker [--step-ms 5] [--streams 32] [--logprobs 20]`: a real Celery worker process, Redis and SQLite,
no API.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis.client
from msgspec import structs
from rich.console import Console
from rich.table import Table

from storage.broker.celery_queue import TicketPublisher
from storage.broker.event_log import TAPS_KEY, Row, decode_batch, reader_channel
from storage.contract import EntryKind
from storage.database.migration import migrate
from tests.fakes import LIMITS, TEXT, FakeRunner, prompt, spec
from tests.services import running_redis
from tests.waiting import wait_until
from tests.workers.children import started, tickets_to
from tests.workers.harness import MODEL, Backend
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceRequest

NUM_JOBS = 100
NUM_WORDS = 500


class Listener:
    """Receives every entry as the API would."""

    def __init__(self, backend: Backend) -> None:
        self._channel: redis.client.PubSub = backend.redis.pubsub(ignore_subscribe_messages=True)
        channel = reader_channel("bench")
        self._channel.subscribe(channel)
        wait_until(lambda: backend.redis.pubsub_numsub(channel)[0][1] == 1)
        backend.redis.sadd(TAPS_KEY, "bench")

    def rows(self) -> Iterator[tuple[float, Row]]:
        """(moment, row) for ever; moments in seconds of `time.perf_counter`."""
        while True:
            message = self._channel.get_message(timeout=5.0)
            if message is not None:
                now = time.perf_counter()
                yield from ((now, row) for row in decode_batch(message["data"]))


@contextmanager
def worker(step_s: float) -> Iterator[tuple[Backend, TicketPublisher, Listener]]:
    """A worker that is ready, and ways to use and watch it."""
    with tempfile.TemporaryDirectory(prefix="tokenpost-bench-") as name, running_redis() as server:
        url = f"sqlite:///{name}/bench.db"
        migrate(url)
        backend = Backend(url, server.url)
        with started(backend, Path(name), fake_step_s=step_s), tickets_to(backend) as tickets:
            yield backend, tickets, Listener(backend)
        backend.close()


def latencies(backend: Backend, tickets: TicketPublisher, listener: Listener) -> dict[str, list[float]]:
    """Milliseconds of jobs that run one after another."""
    times: dict[str, list[float]] = {"ticket to first token": [], "END to acknowledgement": []}
    rows = listener.rows()
    for index in range(NUM_JOBS):
        job_id = backend.put_job(spec(3, salt=index))
        sent = time.perf_counter()
        tickets.send(job_id, MODEL)
        first = next(now for now, row in rows if row[3] == EntryKind.TOKENS)
        ended = next(now for now, row in rows if row[3] == EntryKind.END)
        while backend.redis.hlen("unacked"):
            pass
        times["ticket to first token"].append(1000 * (first - sent))
        times["END to acknowledgement"].append(1000 * (time.perf_counter() - ended))
    return times


def rate_through_worker(
    backend: Backend, tickets: TicketPublisher, listener: Listener, num_streams: int, num_logprobs: int | None
) -> float:
    """Tokens a second, from the first token to the last END."""
    rows = listener.rows()
    asked = structs.replace(spec(NUM_WORDS).sampling, logprobs=num_logprobs)
    specs = [structs.replace(spec(NUM_WORDS, salt=index), sampling=asked) for index in range(num_streams)]
    job_ids = [backend.put_job(one) for one in specs]
    for job_id in job_ids:
        tickets.send(job_id, MODEL)
    begun = next(now for now, row in rows if row[3] == EntryKind.TOKENS)
    ends = (now for now, row in rows if row[3] == EntryKind.END)
    last = [next(ends) for _ in job_ids][-1]
    return num_streams * (NUM_WORDS + 1) / (last - begun)


def rate_alone(step_s: float, num_streams: int) -> float:
    """Tokens a second of the engine in process."""
    engine = Engine(FakeRunner(step_s), TEXT, LIMITS)
    for index in range(num_streams):
        words = prompt(NUM_WORDS, salt=index)
        engine.add(SequenceRequest(sequence_id=str(index), prompt=words, sampling=spec(NUM_WORDS).sampling))
    begun = time.perf_counter()
    while engine.has_work:
        engine.step()
    return num_streams * (NUM_WORDS + 1) / (time.perf_counter() - begun)


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step-ms", type=float, default=5.0)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--logprobs", type=int, help="alternatives reported for each token; none reports nothing")
    arguments = parser.parse_args()
    step_s, num_streams = arguments.step_ms / 1000, arguments.streams
    alone = rate_alone(step_s, num_streams)
    with worker(step_s) as (backend, tickets, listener):
        times = latencies(backend, tickets, listener)
        rate = rate_through_worker(backend, tickets, listener, num_streams, arguments.logprobs)
    table = Table(title=f"generation worker, {arguments.step_ms} ms a step")
    for heading in ("milliseconds", "p10", "p50", "p90"):
        table.add_column(heading, justify="right")
    for name, values in times.items():
        deciles = statistics.quantiles(values, n=10)
        table.add_row(name, f"{deciles[0]:.2f}", f"{statistics.median(values):.2f}", f"{deciles[8]:.2f}")
    Console().print(table)
    Console().print(f"{num_streams} streams: {rate:.0f} tokens/s, {100 * rate / alone:.0f} % of the engine in process")


if __name__ == "__main__":
    main()
