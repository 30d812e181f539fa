"""Write deadline: clients who do not read their responses, over real sockets."""

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from api.server.write_deadline import WriteDeadline
from api.settings import ApiSettings
from storage.contract import JobStatus
from storage.database.connections import Database
from storage.jobs import jobs
from tests.api.examples import CHAT, RESPONSE, without_heartbeats
from tests.api.fake_worker import FakeWorker
from tests.api.server import Server, serving
from tests.waiting import wait_until

DEADLINE_S = 1.0
# More than the kernel, uvicorn and the client's small window hold together.
WORDS = ("x" * 50_000,) * 40


@pytest.fixture
def server(settings: ApiSettings, worker: FakeWorker) -> Iterator[Server]:
    """An API with a short write deadline."""
    with serving(settings, write_deadline_s=DEADLINE_S) as running:
        yield running


@contextmanager
def _asking(server: Server, path: str, body: dict[str, object]) -> Iterator[socket.socket]:
    """A client that has posted and does not read."""
    data = json.dumps(body).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(
            b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (path.encode(), len(data), data)
        )
        yield client


def _status(database: Database) -> JobStatus:
    with database.connect() as c:
        [job] = jobs.list_all(c)
    return job.status


def test_an_unread_stream_is_disconnected_and_its_job_cancelled(
    server: Server, worker: FakeWorker, database: Database
) -> None:
    worker.words, worker.pauses_at = WORDS, len(WORDS)

    with _asking(server, CHAT.path, {**CHAT.body, "stream": True}):
        wait_until(lambda: worker.num_claimed == 1)
        wait_until(lambda: _status(database) is JobStatus.CANCELLED, DEADLINE_S + 5, "the cancellation")
        assert server.num_connections == 0


def test_a_background_job_runs_on_when_its_stream_is_disconnected(
    server: Server, worker: FakeWorker, database: Database
) -> None:
    worker.words, worker.pauses_at = WORDS, len(WORDS)

    with _asking(server, RESPONSE.path, {**RESPONSE.body, "stream": True, "background": True}):
        wait_until(lambda: worker.num_claimed == 1)
        wait_until(lambda: server.num_connections == 0, DEADLINE_S + 5, "the disconnect")
        worker.go.set()
        wait_until(lambda: _status(database) is JobStatus.COMPLETED)


def test_an_answer_that_is_not_read_holds_no_connection(server: Server, worker: FakeWorker, database: Database) -> None:
    worker.words = WORDS

    with _asking(server, CHAT.path, CHAT.body):
        wait_until(lambda: worker.num_finished == 1)
        wait_until(lambda: server.num_connections == 0, DEADLINE_S + 5, "the disconnect")

    assert _status(database) is JobStatus.COMPLETED


def test_a_client_that_reads_late_misses_nothing(
    settings: ApiSettings, worker: FakeWorker, http: httpx2.Client
) -> None:
    worker.words = tuple(f"{number:05}" + "x" * 2500 for number in range(900))
    body = {**CHAT.body, "stream": True, "max_tokens": 900}

    with serving(settings) as patient, _asking(patient, CHAT.path, body) as client:
        wait_until(lambda: worker.num_finished == 1, 30)
        received = b""
        while b"data: [DONE]" not in received[-200:]:
            received += client.recv(1 << 20)

    job_id = received.partition(b"x-job-id: ")[2].partition(b"\r")[0].decode()
    replayed = http.get(CHAT.url_of(job_id), params={"stream": "true"})
    assert without_heartbeats(_unchunked(received)) == without_heartbeats(replayed.content)


def _unchunked(answer: bytes) -> bytes:
    """The body of an answer in chunks."""
    rest, body = answer.partition(b"\r\n\r\n")[2], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


class _Client:
    """A transport whose client accepts as much as a test says."""

    def __init__(self) -> None:
        self.num_waiting = self.num_taken = 0
        self.is_aborted = False

    def get_write_buffer_size(self) -> int:
        return self.num_waiting

    def get_extra_info(self, name: str) -> "_Client":
        return self

    def getsockopt(self, *_: int) -> bytes:
        return bytes(120) + struct.pack("=Q", self.num_taken)

    def abort(self) -> None:
        self.is_aborted = True


def test_only_a_client_that_accepts_nothing_for_the_whole_deadline_is_disconnected() -> None:
    deadline, deaf, slow, idle, late = WriteDeadline(30), _Client(), _Client(), _Client(), _Client()
    everyone = [deaf, slow, idle, late]
    deaf.num_waiting = slow.num_waiting = 10
    for now in range(0, 91, 10):
        # A heartbeat that is added to the pending output is no progress of the client.
        deaf.num_waiting += 1
        slow.num_taken += now % 20 == 0
        late.num_waiting = 10 if now >= 70 else 0
        deadline.check([one for one in everyone if not one.is_aborted], now)
        assert deaf.is_aborted == (now >= 30)

    assert not any(client.is_aborted for client in (slow, idle, late))
