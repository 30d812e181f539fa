"""Read deadlines and caps on connections: silent and half-sent requests do not keep other callers out."""

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from api.server.connection_limits import ConnectionLimits, Phase
from api.server.open_files import RESERVED_FILES
from api.server.read_deadline import ReadDeadline
from api.settings import ApiSettings
from storage.errors import PlatformError
from tests.api.examples import RESPONSE
from tests.api.fake_worker import FakeWorker
from tests.api.raw_http import GET, POST, code_of, connect, read_all, read_one, responses
from tests.api.server import Server, serving
from tests.plain_http import http_client
from tests.waiting import wait_until

NUM_HOSTILE = 1500
MAX_CONNECTIONS = 400
NUM_CALLERS = 20


class _Connection:
    """A connection in a given phase that counts what is done to it."""

    def __init__(self, phase: Phase = Phase.HEAD, since: float = 0.0, address: str = "10.0.0.1") -> None:
        self.phase, self.since, self.address = phase, since, address
        self.has_sent, self.is_evictable, self.is_paused, self.is_aborted = True, True, False, False
        self.num_progress_bytes = 0
        self.refusals: list[PlatformError] = []

    def refuse(self, error: PlatformError) -> None:
        self.refusals.append(error)

    def take_progress(self) -> int:
        num_bytes, self.num_progress_bytes = self.num_progress_bytes, 0
        return num_bytes

    def abort(self) -> None:
        self.is_aborted = True


def test_at_the_cap_the_oldest_waiting_connection_makes_room() -> None:
    limits = ConnectionLimits(max_connections=16, max_per_address=0)
    answering, body, idle = _Connection(Phase.ANSWER), _Connection(Phase.BODY), _Connection(Phase.IDLE)
    answering.is_evictable = False
    heads = [_Connection(since=float(number)) for number in range(13)]
    for one in (answering, body, idle, *heads):
        assert limits.admit(one, 20.0) is None

    for number in range(15):
        new = _Connection(Phase.ANSWER)
        new.is_evictable = False
        assert limits.admit(new, 20.0) is None
        assert sum(one.is_aborted for one in heads) == min(number + 1, 13)
    assert (answering.is_aborted, idle.is_aborted, body.is_aborted) == (False, True, True)


def test_a_connection_is_refused_when_none_can_make_room() -> None:
    limits = ConnectionLimits(max_connections=16, max_per_address=0)
    young = [_Connection(since=5.0) for _ in range(16)]
    for one in young:
        assert limits.admit(one, 5.0) is None

    refusal = limits.admit(_Connection(), 5.01)

    assert refusal is not None
    assert (refusal.code, refusal.retryable) == ("too_many_connections", True)
    assert not any(one.is_aborted for one in young)


class _Counted(_Connection):
    """A connection that counts how often its age or its state is read, together with others."""

    def __init__(self, reads: list[None], phase: Phase, *, is_evictable: bool) -> None:
        self._reads = reads
        super().__init__(phase)
        self.is_evictable = is_evictable

    @property  # type: ignore[override]
    def since(self) -> float:
        self._reads.append(None)
        return self._since

    @since.setter
    def since(self, value: float) -> None:
        self._since = value

    @property  # type: ignore[override]
    def is_evictable(self) -> bool:
        self._reads.append(None)
        return self._is_evictable

    @is_evictable.setter
    def is_evictable(self, value: bool) -> None:
        self._is_evictable = value


@pytest.mark.parametrize("phase", [Phase.HEAD, Phase.BODY, Phase.ANSWER])
def test_what_a_refused_connection_costs_does_not_grow_with_the_open_ones(phase: Phase) -> None:
    # Half of a second request may have come while the response to the first one is in progress.
    limits, reads = ConnectionLimits(max_connections=1000, max_per_address=0), list[None]()
    open_ones = [_Counted(reads, phase, is_evictable=False) for _ in range(1000)]
    for one in open_ones:
        assert limits.admit(one, 1.0) is None

    reads.clear()
    for number in range(1000):
        refused = _Connection(Phase.REFUSED, since=2.0 + number)
        assert limits.admit(refused, 2.0 + number) is not None
        limits.release(refused)
    assert len(reads) <= 2 * len(open_ones)

    # Its response is complete now.
    open_ones[0].is_evictable = True
    limits.enter(open_ones[0], Phase.IDLE, 2000.0)
    assert limits.admit(_Connection(), 2000.2) is None
    assert [one.is_aborted for one in open_ones] == [True] + 999 * [False]


def test_the_cap_by_address_counts_open_connections_of_that_address_only() -> None:
    limits = ConnectionLimits(max_connections=100, max_per_address=2)
    first, second, third = (_Connection() for _ in range(3))

    assert limits.admit(first, 0.0) is None
    assert limits.admit(second, 0.0) is None
    assert limits.admit(third, 0.0) is not None
    assert limits.admit(_Connection(address="10.0.0.2"), 0.0) is None
    limits.release(third)
    limits.release(first)
    assert limits.admit(_Connection(), 0.0) is None


def test_each_phase_has_its_own_deadline() -> None:
    deadline = ReadDeadline(head_s=10, body_s=60, idle_s=75)
    head, body, idle, answer = (_Connection(phase) for phase in (Phase.HEAD, Phase.BODY, Phase.IDLE, Phase.ANSWER))
    silent, paused = _Connection(), _Connection(Phase.BODY)
    silent.has_sent, paused.is_paused = False, True
    everyone = [head, body, idle, answer, silent, paused]

    deadline.check(everyone, 9.9)
    assert not any(one.refusals or one.is_aborted for one in everyone)
    deadline.check(everyone, 10.0)
    assert [error.code for error in head.refusals] == ["request_timeout"]
    assert (silent.is_aborted, silent.refusals) == (True, [])
    deadline.check(everyone, 75.0)
    assert [error.code for error in body.refusals] == ["request_timeout"]
    assert (idle.is_aborted, idle.refusals) == (True, [])
    assert not answer.refusals
    assert not answer.is_aborted
    # The server did not read, so the client's time begins again.
    assert (paused.refusals, paused.since) == ([], 75.0)


def test_an_upload_goes_on_after_its_deadline_while_it_makes_progress() -> None:
    deadline = ReadDeadline(head_s=10, body_s=60, idle_s=75)
    fast, slow = _Connection(Phase.BODY), _Connection(Phase.BODY)

    fast.num_progress_bytes, slow.num_progress_bytes = 6_000_000, 5_999_999
    deadline.check([fast, slow], 60.0)
    assert (fast.refusals, fast.since) == ([], 60.0)
    assert [error.code for error in slow.refusals] == ["request_timeout"]

    # What came before the first deadline does not count for the second.
    deadline.check([fast], 119.9)
    assert fast.refusals == []
    deadline.check([fast], 120.0)
    assert [error.code for error in fast.refusals] == ["request_timeout"]


@pytest.fixture
def impatient(settings: ApiSettings, worker: FakeWorker) -> Iterator[Server]:
    """An API with short read deadlines."""
    with serving(settings, head_deadline_s=0.7, body_deadline_s=1.2) as running:
        yield running


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", None),
        (GET, 408),
        (b"\r\n", 408),
        (POST + b"content-length: 100\r\n\r\n{", 408),
        (POST + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n", 408),
        (b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{", 404),
    ],
    ids=["silence", "half a head", "empty lines", "half a body", "endless chunks", "half a body after the answer"],
)
def test_a_request_that_is_not_sent_whole_is_ended(impatient: Server, sent: bytes, status: int | None) -> None:
    with connect(impatient) as connection:
        connection.sendall(sent)
        began = time.monotonic()
        received = responses(read_all(connection))
        took_s = time.monotonic() - began

    assert [one for one, _ in received] == ([] if status is None else [status])
    assert status != 408 or code_of(received[0][1]) == "request_timeout"
    assert 0.3 < took_s < 5


def test_a_drip_of_bytes_does_not_extend_the_deadline(impatient: Server) -> None:
    with connect(impatient) as connection:
        connection.sendall(POST + b"content-length: 1000\r\n\r\n")
        connection.settimeout(0.1)
        began = time.monotonic()
        received = b""
        while not received and time.monotonic() - began < 10:
            with contextlib.suppress(TimeoutError):
                connection.sendall(b" ")
                received = connection.recv(65536)

    assert received.startswith(b"HTTP/1.1 408 ")


def test_a_long_answer_outlives_the_read_deadlines(impatient: Server, worker: FakeWorker) -> None:
    worker.pauses_at = 1
    body = json.dumps(RESPONSE.body).encode()
    with connect(impatient) as connection:
        connection.sendall(POST + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        wait_until(lambda: worker.num_claimed == 1)
        connection.settimeout(2.0)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        worker.go.set()
        assert read_one(connection)[0] == 200


def test_1500_silent_or_half_sent_connections_keep_nobody_out(settings: ApiSettings, worker: FakeWorker) -> None:
    halves = [
        b"",
        GET,
        b"GET /v1/mod",
        POST + b"content-length: 100\r\n\r\n{",
        POST + b"transfer-encoding: chunked\r\n",
    ]
    with contextlib.ExitStack() as stack:
        # No read deadline frees a place while this test runs.
        limits = {"max_connections": MAX_CONNECTIONS, "head_deadline_s": 3600, "body_deadline_s": 3600}
        server = stack.enter_context(serving(settings, **limits))
        for number in range(NUM_HOSTILE):
            hostile = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            with contextlib.suppress(OSError):
                hostile.sendall(halves[number % len(halves)])
        # The first caller is accepted after all of those. It repeats while all of them are too young to be evicted.
        wait_until(lambda: _is_admitted(server), 30, "a place for a caller")
        for _ in range(NUM_CALLERS):
            with http_client(server.url, timeout_s=30.0) as caller:
                assert RESPONSE.post(caller).status_code == 200
                assert caller.get("/v1/models").status_code == 200
            assert server.num_connections <= MAX_CONNECTIONS


def _is_admitted(server: Server) -> bool:
    """Whether a new connection is answered; otherwise it was refused with 503."""
    with http_client(server.url, timeout_s=30.0) as caller:
        answer = caller.get("/v1/models")
    assert answer.status_code == 200 or answer.json()["error"]["code"] == "too_many_connections"
    return answer.status_code == 200


def test_the_limit_of_open_files_is_raised_and_shared_with_the_platform() -> None:
    code = (
        "import resource; from api.server.open_files import num_connections_within, raise_open_files_limit; "
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard)); print(num_connections_within(10_000)); "
        "raise_open_files_limit(); print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)); "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); print(num_connections_within(10_000))"
    )

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert printed == [str(1024 - RESERVED_FILES), "True", "16"]
