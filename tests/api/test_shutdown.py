"""A server process that is stopped while its clients stream, and another one that takes over."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import httpx2

from api.cli.listener import listen
from api.settings import ApiSettings
from storage.contract import JobStatus
from storage.database.connections import Database
from storage.jobs import jobs
from tests.api.examples import CHAT, RESPONSE, frames_of
from tests.api.fake_worker import FakeWorker
from tests.waiting import wait_until

NUM_STREAMS = 50
GRACE_S = 1.0
# After its grace a server says good-bye to its clients, and ends.
FAREWELL_S = 4.0
_NUMBER = re.compile(rb'"sequence_number":(\d+)')


@contextmanager
def _serving(settings: ApiSettings) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A process as `tokenpost serve` runs it, and its address."""
    variables = {
        "TOKENPOST_DATABASE_URL": settings.database_url,
        "TOKENPOST_REDIS_URL": settings.redis_url,
        "TOKENPOST_PEPPER": "pepper-of-a-test",
        "TOKENPOST_DRAIN_GRACE_S": str(GRACE_S),
    }
    with listen("127.0.0.1", 0) as listener:
        number, url = listener.fileno(), f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-m", "api.server.entry_point", str(number)]
        process = subprocess.Popen(command, env={**os.environ, **variables}, pass_fds=[number], stderr=subprocess.PIPE)
    try:
        yield process, url
    finally:
        process.kill()
        process.communicate()


def _wait_ready(url: str) -> None:
    # The kernel holds the connection until the process accepts it.
    with httpx2.Client(base_url=url, trust_env=False, timeout=30) as http:
        wait_until(lambda: http.get("/readyz").status_code == 200, 30, "readiness")


def _follow(url: str) -> bytes:
    """All that the stream of a new background job says."""
    body = {**RESPONSE.body, "stream": True, "background": True}
    return httpx2.post(url + RESPONSE.path, json=body, trust_env=False, timeout=30).content


def _go_on(url: str, seen: bytes) -> list[bytes]:
    """The frames of a stream that was broken off, and those that another server has behind them."""
    frames = [frame for frame in frames_of(seen) if _NUMBER.search(frame)]
    last, job_id = _NUMBER.findall(frames[-1])[-1].decode(), re.findall(rb'"id":"(resp_\w+)"', frames[0])[0].decode()
    parameters = {"stream": "true", "starting_after": last}
    rest = httpx2.get(url + RESPONSE.url_of(job_id), params=parameters, trust_env=False, timeout=30)
    whole = httpx2.get(url + RESPONSE.url_of(job_id), params={"stream": "true"}, trust_env=False, timeout=30)
    assert frames + frames_of(rest.content) == frames_of(whole.content)
    return frames_of(whole.content)


def _ask_and_not_read(url: str) -> socket.socket:
    client, body = socket.socket(), json.dumps({**CHAT.body, "stream": True}).encode()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", int(url.rpartition(":")[2])))
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (CHAT.path.encode(), len(body))
    client.sendall(head + body)
    return client


def _num_jobs(database: Database) -> int:
    with database.connect() as c:
        return len(jobs.list_all(c, limit=NUM_STREAMS + 2))


def test_a_server_that_goes_tells_its_readers_who_go_on_elsewhere(
    settings: ApiSettings, worker: FakeWorker, database: Database
) -> None:
    # More than one client's connection holds, so that who does not read keeps its stream waiting.
    worker.words, worker.pauses_at = tuple(f"{number:03}" + "x" * 10_000 for number in range(30)), 28
    with ExitStack() as stack:
        going, url = stack.enter_context(_serving(settings))
        _, other_url = stack.enter_context(_serving(settings))
        for one in (url, other_url):
            _wait_ready(one)
        stack.enter_context(_ask_and_not_read(url))
        wait_until(lambda: worker.num_claimed == 1)
        with ThreadPoolExecutor(NUM_STREAMS) as threads:
            streams = [threads.submit(_follow, url) for _ in range(NUM_STREAMS)]
            wait_until(lambda: worker.num_claimed == 32, 20, "the start of as many jobs as run at once")
            # A connection that the server has not accepted yet is reset when it goes: each stream has its job before.
            wait_until(lambda: _num_jobs(database) == NUM_STREAMS + 1, 20, "the job of every stream")
            going.send_signal(signal.SIGTERM)
            began = time.monotonic()
            _, complaints = going.communicate(timeout=GRACE_S + FAREWELL_S + 10)
            took_s = time.monotonic() - began
            seen = [stream.result() for stream in streams]
        worker.go.set()
        wholes = [_go_on(other_url, one) for one in seen]

    assert took_s < GRACE_S + FAREWELL_S
    assert b"Traceback" not in complaints
    assert all(b'"code":"shutting_down"' in one and one.endswith(b"data: [DONE]\n\n") for one in seen)
    assert all(b'"type":"response.completed"' in frames[-2] for frames in wholes)
    numbers = [[int(_NUMBER.findall(frame)[-1]) for frame in frames[:-1]] for frames in wholes]
    assert all(found == list(range(len(found))) for found in numbers)
    with database.connect() as c:
        assert {job.status for job in jobs.list_all(c)} == {JobStatus.COMPLETED}
