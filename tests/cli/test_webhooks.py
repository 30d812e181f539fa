"""`tokenpost webhooks` on real rows, and the receiver as a process of its own."""

import json
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx2
import pytest

from api.cli.home import Home
from storage.accounts import keys
from storage.contract import JobKind
from storage.database.connections import Database
from storage.jobs import jobs
from storage.webhooks import deliveries, endpoints, events
from storage.webhooks.signing import new_secret, sign
from storage.webhooks.tables import WebhookEndpoint
from tests.api.fake_sender import FakeSender, sending
from tests.cli.conftest import Run
from tests.storage.examples import put_delivery, put_endpoint, put_job
from tests.waiting import wait_until

URL = "https://93.184.215.14/hook"


@pytest.fixture
def sender(home: Home) -> Iterator[FakeSender]:
    """Somebody who sends."""
    with sending(home.database_url) as running:
        yield running


def test_an_endpoint_is_made_listed_and_deleted(run: Run) -> None:
    made = run("webhooks", "create", URL, "--name", "mine", "--event", "response.failed", "--json").json
    table, listed = run("webhooks", "list").out, run("webhooks", "list", "--json").json

    assert made["signing_secret"].startswith("whsec_")
    assert made["event_types"] == ["response.failed"]
    assert listed == [{name: value for name, value in made.items() if name != "signing_secret"}]
    assert table.splitlines()[0].split() == ["ID", "NAME", "STATE", "TYPES", "URL"]
    assert table.splitlines()[1].split() == [made["id"], "mine", "enabled", "1", URL]
    assert made["signing_secret"] not in table
    assert run("webhooks", "list", "--owner", "alice").out == "alice has no webhook endpoints.\n"
    assert run("webhooks", "delete", made["id"]).out == "Deleted.\n"
    assert run("webhooks", "list").out == "local has no webhook endpoints.\n"


def test_a_secret_is_shown_when_its_endpoint_is_made(run: Run) -> None:
    out = run("webhooks", "create", URL).out

    assert "signing secret  whsec_" in out
    assert "not shown again" in out


@pytest.mark.parametrize("url", ["https://10.0.0.1/", "http://93.184.215.14/", "ftp://93.184.215.14/", "nonsense"])
def test_no_endpoint_leads_to_where_nothing_is_sent(run: Run, url: str) -> None:
    said = run("webhooks", "create", url)

    assert said.code == 1
    assert said.err.startswith("tokenpost: No webhook can be sent to this URL: ")
    assert run("webhooks", "list", "--json").json == []


def test_this_machine_is_an_endpoint_until_there_is_a_key(run: Run, home_database: Database) -> None:
    first = run("webhooks", "create", "http://127.0.0.1:9/")
    with home_database.begin() as c:
        keys.create(c, "alice", pepper=b"pepper", now=datetime.now(UTC))

    assert (first.code, run("webhooks", "create", "http://127.0.0.1:9/").code) == (0, 1)


def test_what_an_operator_allows_is_an_endpoint(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENPOST_WEBHOOK_ALLOW", "10.0.0.0/8")

    assert run("webhooks", "create", "http://10.0.0.1:8080/hook").code == 0


def test_a_type_that_does_not_exist_is_named(run: Run) -> None:
    said = run("webhooks", "create", URL, "--event", "batch.begun")

    assert said.code == 1
    assert said.err.startswith("tokenpost: 'batch.begun' is no type of event; there are response.completed, ")


def test_a_test_tells_the_answer(run: Run, home_database: Database, sender: FakeSender) -> None:
    with home_database.begin() as c:
        endpoint = put_endpoint(c, owner="local")

    good = run("webhooks", "test", endpoint.id)
    sender.status_code = 500
    bad = run("webhooks", "test", endpoint.id, "--event", "completion.failed", "--json")

    assert (good.code, good.out) == (0, "204 in 7 ms.\n")
    assert bad.code == 1
    assert (bad.json["event_type"], bad.json["attempts"][0]["status_code"]) == ("completion.failed", 500)
    assert run("webhooks", "test", "we_nope").err == "tokenpost: No webhook endpoint with id 'we_nope'.\n"


def test_deliveries_are_listed_and_sent_again(run: Run, home_database: Database, sender: FakeSender) -> None:
    sender.status_code, sender.error = None, "The receiver refused the connection."
    with home_database.begin() as c:
        endpoint = put_endpoint(c, owner="local")
        delivery = put_delivery(c, endpoint, created_at=datetime.now(UTC), next_attempt_at=datetime.now(UTC))
    wait_until(lambda: sender.sent)

    table = run("webhooks", "deliveries", "--endpoint", endpoint.id, "--status", "dead").out
    sender.status_code, sender.error = 200, None
    again = run("webhooks", "redeliver", delivery.id)
    wait_until(lambda: len(sender.sent) == 2)
    since = run("webhooks", "redeliver", endpoint.id, "--since", "1h", "--json")
    wait_until(lambda: len(sender.sent) == 3)

    row = table.splitlines()[1]
    assert row.split()[:5] == [delivery.id, "response.completed", delivery.job_id, "dead", "1"]
    assert "The receiver refused the connection." in row
    assert again.out == "Due again: 1.\n"
    assert since.json["num_deliveries"] == 1
    [shown] = run("webhooks", "deliveries", "--job", str(delivery.job_id), "--json").json
    assert [attempt["status_code"] for attempt in shown["attempts"]] == [None, 200, 200]
    assert run("webhooks", "deliveries", "--job", "resp_other").out == "There are no such deliveries.\n"


@pytest.mark.parametrize("arguments", [("we_x",), ("dlv_x", "--since", "1h")])
def test_only_an_endpoint_is_redelivered_since_a_moment(run: Run, arguments: tuple[str, ...]) -> None:
    said = run("webhooks", "redeliver", *arguments)

    assert (said.code, said.err) == (2, "tokenpost: an endpoint needs --since, a delivery does not\n")


def test_the_default_secret_stays_until_it_is_replaced(run: Run) -> None:
    first, again = run("webhooks", "secret").out, run("webhooks", "secret").out
    rotated = run("webhooks", "secret", "--rotate", "--json").json

    assert first.startswith("whsec_")
    assert again == first
    assert rotated["signing_secret"] != first.strip()
    assert run("webhooks", "secret").out.strip() == rotated["signing_secret"]


# --- listen ---


class Listening:
    """A running `tokenpost webhooks listen`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.process, self.out, self.err = process, process.stdout, process.stderr
        self.greeting = self.err.readline()
        self.url = self.greeting.split()[3]

    def post(self, event: dict[str, object], secret: str) -> httpx2.Response:
        """The receiver's answer to a signed event."""
        body, now = json.dumps(event).encode(), int(time.time())
        headers = {
            "webhook-id": "evt_1",
            "webhook-timestamp": str(now),
            "webhook-signature": sign([secret], "evt_1", now, body),
        }
        return httpx2.post(self.url, content=body, headers=headers, trust_env=False)

    def stop(self, number: signal.Signals) -> int:
        """The exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(20)


@contextmanager
def listening(home: Home, *arguments: str) -> Iterator[Listening]:
    """A receiver on a free port; killed where the test did not stop it."""
    line = [sys.executable, "-m", "api.cli.main", "webhooks", "listen", "--port", "0", "--home", str(home.path)]
    with subprocess.Popen(
        [*line, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        try:
            yield Listening(process)
        finally:
            process.kill()


def _endpoints(database: Database) -> list[WebhookEndpoint]:
    with database.connect() as c:
        return endpoints.list_endpoints(c, "local")


EVENT: dict[str, object] = {"id": "evt_1", "type": "response.completed", "data": {"id": "resp_1"}}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_receiver_is_an_endpoint_as_long_as_it_lives(
    home: Home, home_database: Database, number: signal.Signals
) -> None:
    with listening(home, "--event", "response.completed", "--event", "response.failed") as receiver:
        [endpoint] = wait_until(lambda: _endpoints(home_database))

        assert endpoint.url == receiver.url
        assert endpoint.event_types == ["response.completed", "response.failed"]
        assert (
            receiver.greeting == f"tokenpost: listening on {endpoint.url} as {endpoint.id} of local; Ctrl-C ends it\n"
        )
        assert receiver.post(EVENT, endpoint.secret).status_code == 204
        assert receiver.out.readline().split()[1:] == ["response.completed", "resp_1", "evt_1"]
        assert receiver.stop(number) == 0
        assert receiver.err.read() == f"tokenpost: stopped; {endpoint.id} is deleted\n"

    assert _endpoints(home_database) == []


def test_a_receiver_refuses_what_is_not_signed(home: Home, home_database: Database) -> None:
    with listening(home, "--json") as receiver:
        [endpoint] = wait_until(lambda: _endpoints(home_database))

        assert receiver.post(EVENT, new_secret()).status_code == 401
        assert httpx2.post(receiver.url, content=b"{}", trust_env=False).status_code == 401
        assert httpx2.post(receiver.url, content=b"x" * 1_000_001, trust_env=False).status_code == 413
        assert httpx2.get(receiver.url, trust_env=False).status_code == 501
        assert receiver.post(EVENT, endpoint.secret).status_code == 204
        assert json.loads(receiver.out.readline()) == EVENT
        receiver.stop(signal.SIGINT)
        said = receiver.err.read().splitlines()

    assert said[0] == "tokenpost: refused what came: webhook-signature holds no signature by this secret"
    assert said[1].startswith("tokenpost: refused what came: webhook-timestamp")


def test_a_caller_who_leaves_is_a_line(home: Home, home_database: Database) -> None:
    with listening(home, "--no-endpoint") as receiver:
        port = int(receiver.url.rstrip("/").rpartition(":")[2])
        caller = socket.create_connection(("127.0.0.1", port))
        caller.sendall(b"POST / HTTP/1.1\r\ncontent-length: 100\r\n\r\n{")
        # Leaving by a reset, in the middle of the body.
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.close()

        assert receiver.err.readline().startswith("tokenpost: refused what came: ")
        assert receiver.stop(signal.SIGINT) == 0
        assert receiver.err.read() == ""


def test_what_a_killed_receiver_left_is_taken_away_by_the_next(home: Home, home_database: Database) -> None:
    with listening(home) as killed:
        port = killed.url.rstrip("/").rpartition(":")[2]
        [left] = wait_until(lambda: _endpoints(home_database))
        killed.stop(signal.SIGKILL)

    with listening(home, "--port", port) as receiver:
        [endpoint] = _endpoints(home_database)
        assert (endpoint.url, receiver.url) == (left.url, left.url)
        assert endpoint.id != left.id


def test_a_receiver_says_whether_the_platform_reaches_it(
    home: Home, home_database: Database, sender: FakeSender
) -> None:
    sender.status_code, sender.error = None, "The receiver refused the connection."
    with listening(home) as receiver:
        assert receiver.err.readline() == (
            "tokenpost: the platform does not reach this receiver: The receiver refused the connection.\n"
        )
        assert "TOKENPOST_WEBHOOK_ALLOW=127.0.0.1" in receiver.err.readline()
        receiver.stop(signal.SIGINT)


def test_a_receiver_without_an_endpoint_takes_what_jobs_name_it_for(home: Home, home_database: Database) -> None:
    with listening(home, "--no-endpoint") as receiver:
        with home_database.begin() as c:
            secret = endpoints.default_secret(c, "local", new_secret(), datetime.now(UTC))
            job_id = put_job(c, owner="local", kind=JobKind.RESPONSE, webhook={"url": receiver.url})
            assert jobs.cancel(c, job_id, datetime.now(UTC))
            assert events.fan_out(c, datetime.now(UTC)) == 1
            [delivery] = deliveries.list_deliveries(c, "local")

        assert _endpoints(home_database) == []
        assert delivery.secret == secret
        assert receiver.post(EVENT, secret).status_code == 204
        assert receiver.stop(signal.SIGINT) == 0


def test_a_port_in_use_is_one_line(home: Home, run: Run) -> None:
    with listening(home, "--no-endpoint") as receiver:
        port = receiver.url.rstrip("/").rpartition(":")[2]

        said = run("webhooks", "listen", "--port", port)

        assert said.code == 1
        assert said.err == f"tokenpost: port {port} on 127.0.0.1 is in use; choose another with --port\n"
