"""Uploads beside interactive work: seconds for 200 MB, growth of the API's memory, and the latency of accepted jobs.

    python -m bench.uploads [sqlite|postgres]

The server is `api.server` as a process of its own; the client writes over loopback as fast as it is read. One upload
alone, then two beside a client that creates background jobs one after another, 10 ms apart.
"""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import psutil

from storage.database.migration import migrate
from tests.api.fake_worker import working
from tests.services import running_postgres, running_redis
from tests.waiting import wait_until

SIZE_BYTES = 200_000_000
ALONE_S = 8.0
PAUSE_S = 0.01
_BOUNDARY = b"boundary-of-the-bench"
_HEAD = (
    b'--%b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--%b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' % (_BOUNDARY, _BOUNDARY)
)
_TAIL = b"\r\n--%b--\r\n" % _BOUNDARY
_JOB = json.dumps({"model": "demo", "input": "hi", "background": True, "max_output_tokens": 4})


def main() -> None:
    """Print one line for each measurement."""
    kind = sys.argv[1] if len(sys.argv) > 1 else "sqlite"
    with ExitStack() as stack:
        redis_url = stack.enter_context(running_redis()).url
        if kind == "sqlite":
            folder = tempfile.mkdtemp()
            stack.callback(shutil.rmtree, folder)
            database_url = f"sqlite:///{folder}/bench.db"
        else:
            server = stack.enter_context(running_postgres())
            database_url = server.url_of(server.create())
        migrate(database_url)
        stack.enter_context(working(database_url, redis_url))
        port, process = stack.enter_context(_api(database_url, redis_url))
        with _accepting(port):
            time.sleep(2)
        with _accepting(port) as alone:
            time.sleep(ALONE_S)
        print(f"{kind}: accepted jobs alone: {_shown(alone)}")
        before = process.memory_info().rss
        for has_jobs in (False, True, True):
            with _peak(process) as peak, ExitStack() as beside:
                latencies = beside.enter_context(_accepting(port)) if has_jobs else []
                seconds = _upload(port)
            line = f"{kind}: {SIZE_BYTES // 10**6} MB in {seconds:.2f} s, {(max(peak) - before) / 2**20:+.1f} MiB"
            print(f"{line}; accepted jobs meanwhile: {_shown(latencies)}" if has_jobs else line)


@contextmanager
def _api(database_url: str, redis_url: str) -> Iterator[tuple[int, psutil.Process]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "TOKENPOST_DATABASE_URL": database_url,
        "TOKENPOST_REDIS_URL": redis_url,
        "TOKENPOST_PORT": str(port),
        "TOKENPOST_PEPPER": "pepper-of-a-bench",
        "TOKENPOST_LOG_LEVEL": "WARNING",
    }
    process = subprocess.Popen([sys.executable, "-m", "api.server.entry_point"], env={**os.environ, **settings})
    try:
        wait_until(lambda: _is_ready(port), 30, "the API")
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _is_ready(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False


@contextmanager
def _accepting(port: int) -> Iterator[list[float]]:
    """Milliseconds of each job that was accepted during the block."""
    found: list[float] = []
    stopping = threading.Event()

    def run() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while not stopping.wait(PAUSE_S):
            began = time.perf_counter()
            connection.request("POST", "/v1/responses", _JOB, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            found.append((time.perf_counter() - began) * 1000)

    with _thread(run, stopping):
        yield found


@contextmanager
def _peak(process: psutil.Process) -> Iterator[list[int]]:
    """Resident bytes of the process during the block."""
    found: list[int] = [process.memory_info().rss]
    stopping = threading.Event()

    def run() -> None:
        while not stopping.wait(0.01):
            found.append(process.memory_info().rss)

    with _thread(run, stopping):
        yield found


@contextmanager
def _thread(run, stopping: threading.Event) -> Iterator[None]:  # type: ignore[no-untyped-def]  # any function
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def _upload(port: int) -> float:
    """Seconds until the upload was answered."""
    line = b'{"custom_id": "x", "method": "POST", "body": {"input": "%b"}}\n' % (os.urandom(32).hex().encode() * 50)
    block = (line * 400)[:1_000_000]
    length = len(_HEAD) + SIZE_BYTES + len(_TAIL)
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(
            b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=%b\r\n"
            b"content-length: %d\r\n\r\n" % (_BOUNDARY, length) + _HEAD
        )
        for _ in range(SIZE_BYTES // len(block)):
            connection.sendall(block)
        connection.sendall(_TAIL)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200"), answer
    return time.perf_counter() - began


def _shown(latencies: Sequence[float]) -> str:
    ordered = sorted(latencies)
    at = {share: ordered[int(len(ordered) * share)] for share in (0.5, 0.99)}
    return f"p50 {at[0.5]:.1f}, p99 {at[0.99]:.1f}, max {ordered[-1]:.1f} ms of {len(ordered)}"


if __name__ == "__main__":
    main()
