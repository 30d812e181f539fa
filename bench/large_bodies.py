"""How large or hostile request bodies delay the token streams of other callers in one API process.

`python -m bench.large_bodies [--rounds 3] [--only KIND ...]`: 32 streams of a fake worker, one token of each every 40
ms, undisturbed and beside bodies that are posted once a second: of 10 MB, or with a schema or grammar that takes a
checker process all the time that it may use. Streams, worker and bodies share this machine's processors with
the API.
"""

import argparse
import itertools
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import uvloop
from rich.console import Console
from rich.table import Table

from api.cli.home import Home
from bench.accept import MODEL, serving
from bench.stream_client import percentile, request_of, run_together
from storage.broker.celery_queue import queue_of
from storage.broker.event_log import LogWriter, Row, encode_end, encode_tokens
from storage.broker.redis_client import connect
from storage.contract import (
    End,
    EntryKind,
    FinishReason,
    JobStatus,
    PriorityQueue,
    Result,
    TokenEvent,
    Usage,
    WorkerStatus,
)
from storage.database.connections import Database
from storage.fleet import workers
from storage.jobs import jobs
from tests.api.hostile_constraints import HOSTILE

NUM_STREAMS = 32
NUM_TOKENS = 200
STEP_S = 0.04
BODY_BYTES = 10_000_000
_WORKER = "bench-worker"
_MESSAGE = '{"role": "user", "content": ""}'
_VARIED = "@" * 8
_SENTENCE = 'The quick, brown fox [jumps] over the {lazy} dog\'s \\"tail\\".\\n'


def body_of(head: str, piece: str, separator: str, tail: str) -> bytes:
    """A JSON text of nearly the largest size that is accepted."""
    num_pieces = (BODY_BYTES - len(head) - len(tail)) // (len(piece) + len(separator))
    return (head + separator.join([piece] * num_pieces) + tail).encode()


def bodies() -> dict[str, bytes]:
    """Bodies by what they are full of; each is refused, the text only because it is longer than the context."""
    chat = f'{{"model": "{MODEL}", "messages": ['
    return {
        "messages": body_of(chat, _MESSAGE, ",", "]}"),
        "parts": body_of(chat + '{"role": "user", "content": [', '{"type": "text", "text": "a"}', ",", "]}]}"),
        "text": body_of(chat + '{"role": "user", "content": "', _SENTENCE, "", '"}]}'),
        "escapes": body_of(chat + '{"role": "user", "content": "', "\\u00e4", "", '"}]}'),
        "schema": _hostile("9,000 objects in an enum", "guided_json"),
        "patterns": _hostile("many patterns", "guided_json"),
        "references": _hostile("4,000 references in a row", "guided_json"),
        "grammar": _hostile("terminals that double", "guided_grammar"),
    }


def _hostile(name: str, field: str) -> bytes:
    """A body with a hostile text, which is another one each time it is sent: verdicts are remembered."""
    text = HOSTILE[name]().text
    text = f"{text}\n// {_VARIED}" if field == "guided_grammar" else f'{{"$comment": "{_VARIED}", {text[1:]}'
    return json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], field: text}).encode()


def work(database_url: str, redis_url: str) -> None:
    """Run the fake worker until it is killed: every running job gets one token a step."""
    database, redis = Database(database_url), connect(redis_url)
    log = LogWriter(redis, _WORKER)
    new = workers.NewWorker(
        worker_id=_WORKER, model=MODEL, pid=1, host="here", device="cpu", dtype="float32", slots=NUM_STREAMS
    )
    with database.begin() as connection:
        workers.register(connection, new, datetime.now(UTC))
    queues = [queue_of(MODEL, one) for one in PriorityQueue]
    running: dict[str, tuple[int, int]] = {}
    beat_at = next_at = time.monotonic()
    while True:
        if time.monotonic() >= beat_at:
            beat_at += 1
            with database.begin() as connection:
                workers.set_status(connection, _WORKER, WorkerStatus.READY)
        rows: list[Row] = []
        for queue in queues:
            for ticket in redis.lpop(queue, NUM_STREAMS) or ():
                job_id = json.loads(ticket)["headers"]["id"]
                with database.begin() as connection:
                    claim = jobs.claim(connection, job_id, _WORKER, datetime.now(UTC))
                if claim is not None:
                    running[job_id] = claim.attempt, 0
                    rows.append((job_id, claim.attempt, 0, EntryKind.START, b""))
        for job_id, (attempt, num_tokens) in list(running.items()):
            rows += _step(database, job_id, attempt, num_tokens + 1)
            running[job_id] = attempt, num_tokens + 1
            if num_tokens + 1 == NUM_TOKENS:
                del running[job_id]
        if rows:
            log.append(rows)
        next_at = max(next_at + STEP_S, time.monotonic())
        time.sleep(max(0.0, next_at - time.monotonic()))


def _step(database: Database, job_id: str, attempt: int, seq: int) -> list[Row]:
    finish = FinishReason.LENGTH if seq == NUM_TOKENS else None
    event = TokenEvent(choice=0, token_ids=(seq,), text=" token", finish=finish)
    rows: list[Row] = [(job_id, attempt, seq, EntryKind.TOKENS, encode_tokens((event,)))]
    if finish is not None:
        usage, now = Usage(prompt_tokens=1, completion_tokens=seq, cached_tokens=0), datetime.now(UTC)
        status, result = JobStatus.INCOMPLETE, Result(entries=((event,),))
        with database.begin() as connection:
            jobs.complete(connection, job_id, attempt, status=status, result=result, usage=usage, now=now)
        end = End(status=status, usage=usage, ended_at=int(now.timestamp()))
        rows.append((job_id, attempt, seq + 1, EntryKind.END, encode_end(end)))
    return rows


def post_each_second(port: int, kind: str) -> None:
    """Post the body once a second until this process is killed; print the first status."""
    body = bodies()[kind]
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    request = f"{head}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    print("ready", flush=True)
    for number in itertools.count():
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request.replace(_VARIED.encode(), b"%08d" % number))
            answer = connection.recv(65536)
        if not answer.startswith(b"HTTP/1.1 400 "):
            raise SystemExit(f"answered otherwise: {answer[:300]!r}")
        time.sleep(max(0.0, began + 1 - time.monotonic()))


def measure(port: int) -> list[float]:
    """Seconds between two tokens of a stream, over all streams that run together."""
    fields = {"model": MODEL, "prompt": "Hi", "max_tokens": NUM_TOKENS, "stream": True}
    request = request_of("/v1/completions", {**fields, "stream_options": {"include_usage": True}})
    return uvloop.run(run_together(port, [request] * NUM_STREAMS)).steady_s


def beside(port: int, kind: str) -> list[float]:
    """As `measure`, beside one body a second."""
    command = [sys.executable, "-m", "bench.large_bodies", "--post", str(port), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            return measure(port)
        finally:
            if process.poll() is not None:
                raise SystemExit("the bodies were answered otherwise")
            process.kill()


def _wait_for_worker(port: int) -> None:
    deadline = time.monotonic() + 60
    with httpx2.Client(trust_env=False) as client:
        while client.get(f"http://127.0.0.1:{port}/readyz").status_code != 200:
            if time.monotonic() > deadline:
                raise SystemExit("the worker was not ready in time")
            time.sleep(0.1)


def main() -> None:
    """Measure in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="KIND", help="kinds of bodies; all unless given")
    parser.add_argument("--post", nargs=2, metavar=("PORT", "KIND"), help=argparse.SUPPRESS)
    parser.add_argument("--work", nargs=2, metavar=("DATABASE", "REDIS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.post:
        post_each_second(int(options.post[0]), options.post[1])
    if options.work:
        work(*options.work)
    kinds: dict[str, Callable[[int], list[float]]] = {"undisturbed": measure}
    kinds |= {kind: lambda port, kind=kind: beside(port, kind) for kind in options.only or bodies()}  # type: ignore[misc]
    gaps_s: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="tokenpost-bench-", ignore_cleanup_errors=True) as name:
        home = Home(path=Path(name))
        with serving(home, home.database_url) as (port, _):
            command = [sys.executable, "-m", "bench.large_bodies", "--work", home.database_url, home.redis_url]
            with subprocess.Popen(command) as worker:
                try:
                    _wait_for_worker(port)
                    measure(port)
                    for _ in range(options.rounds):
                        for kind, run in kinds.items():
                            gaps_s[kind].append(run(port))
                finally:
                    worker.kill()
    table = Table(title=f"time between the tokens of {NUM_STREAMS} streams beside one body a second")
    for heading in ("bodies of", "p50 ms", "p99 ms (median of rounds)", "p99 of undisturbed", "longest ms"):
        table.add_column(heading, justify="right")
    undisturbed = statistics.median(percentile(one, 0.99) for one in gaps_s["undisturbed"])
    for kind, rounds in gaps_s.items():
        p99 = statistics.median(percentile(one, 0.99) for one in rounds)
        p50 = statistics.median(percentile(one, 0.5) for one in rounds)
        longest = max(map(max, rounds))
        shown = (f"{1e3 * p50:.1f}", f"{1e3 * p99:.1f}", f"{p99 / undisturbed:.2f}", f"{1e3 * longest:.0f}")
        table.add_row(kind, *shown)
    Console().print(table)


if __name__ == "__main__":
    main()
