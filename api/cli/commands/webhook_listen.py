"""`tokenpost webhooks listen`: a temporary endpoint on this machine."""

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

import msgspec

from api.cli.commands.webhook_outcome import answer_of, wait_for_outcome
from api.cli.commands.webhook_receiver import Received, receiving
from api.cli.console import print_error, print_line, utc_now
from api.cli.listener import listen as listen_on
from storage.database.connections import Database
from storage.ids import new_id
from storage.webhooks import deliveries, endpoints
from storage.webhooks.errors import WebhookEndpointNotFound
from storage.webhooks.event_types import EVENT_TYPES
from storage.webhooks.signing import new_secret
from storage.webhooks.tables import WebhookEndpoint

_HOST = "127.0.0.1"
_NAME = "tokenpost webhooks listen"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TEST_TIMEOUT_S = 10.0


class _Stopped(BaseException):
    """SIGINT or SIGTERM was received."""


class _Screen:
    """Prints one line for each request: events to stdout, everything else to stderr."""

    def __init__(self, *, as_json: bool) -> None:
        self.test_event_id: str | None = None
        self._as_json = as_json

    def show(self, received: Received) -> None:
        event = received.event
        if event is None:
            print_error(f"refused what came: {received.refusal}")
        elif event.get("id") == self.test_event_id:
            print_error("the platform reaches this receiver")
        elif self._as_json:
            sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
            sys.stdout.flush()
        else:
            data = event.get("data")
            job_id = data.get("id") if isinstance(data, dict) else None
            print_line(f"{utc_now():%H:%M:%S}  {event.get('type')}  {job_id or '-'}  {event.get('id')}")


def listen(
    database: Database, owner: str, event_types: Sequence[str], *, port: int, makes_endpoint: bool, as_json: bool
) -> None:
    """Print events until Ctrl-C or SIGTERM; the temporary endpoint is deleted afterwards."""
    with _until_stopped(), listen_on(_HOST, port) as listener:
        url = f"http://{_HOST}:{listener.getsockname()[1]}/"
        own_secret, screen = new_secret(), _Screen(as_json=as_json)
        with database.begin() as connection:
            default_secret = endpoints.default_secret(connection, owner, new_secret(), utc_now())
        with receiving(listener, [own_secret, default_secret], screen.show):
            if not makes_endpoint:
                print_error(f"listening on {url} for the jobs of {owner} that name it; Ctrl-C ends it")
                _wait_for_ever()
            with _endpoint(database, owner, url, event_types, own_secret) as endpoint:
                print_error(f"listening on {url} as {endpoint.id} of {owner}; Ctrl-C ends it")
                _send_test_event(database, endpoint, screen)
                _wait_for_ever()


@contextmanager
def _until_stopped() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> NoReturn:
        # The cleanup is short, and a second Ctrl-C must not leave the endpoint behind.
        for one in _SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        raise _Stopped

    before = {one: signal.signal(one, stop) for one in _SIGNALS}
    try:
        yield
    except _Stopped:
        pass
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def _endpoint(
    database: Database, owner: str, url: str, event_types: Sequence[str], secret: str
) -> Iterator[WebhookEndpoint]:
    """A temporary endpoint; one that a killed `listen` left at this URL is deleted too."""
    endpoint_id = new_id("we_")
    try:
        with database.begin() as connection:
            for other in endpoints.list_endpoints(connection, owner, limit=1000):
                if (other.name, other.url) == (_NAME, url):
                    endpoints.delete_endpoint(connection, other.id, owner, utc_now())
            made = endpoints.create_endpoint(
                connection,
                endpoint_id=endpoint_id,
                owner=owner,
                name=_NAME,
                url=url,
                event_types=event_types,
                secret=secret,
                now=utc_now(),
            )
        yield made
    finally:
        with suppress(WebhookEndpointNotFound), database.begin() as connection:
            endpoints.delete_endpoint(connection, endpoint_id, owner, utc_now())
            print_error(f"stopped; {endpoint_id} is deleted")


def _send_test_event(database: Database, endpoint: WebhookEndpoint, screen: _Screen) -> None:
    """Report whether events reach this receiver."""
    event_type = (endpoint.event_types or EVENT_TYPES)[0]
    with database.begin() as connection:
        test = deliveries.create_test_delivery(connection, endpoint, event_type, utc_now())
        # Before the commit, so before a sender can claim it.
        screen.test_event_id = test.event_id
    attempt = wait_for_outcome(database, test.id, timeout_s=_TEST_TIMEOUT_S)
    if attempt is None:
        print_error("no CPU worker has sent a test event yet; does the platform run?")
    elif attempt.status_code is None:
        print_error(f"the platform does not reach this receiver: {answer_of(attempt)}")
        print_error("where it asks for keys, its CPU worker needs TOKENPOST_WEBHOOK_ALLOW=127.0.0.1")


def _wait_for_ever() -> NoReturn:
    threading.Event().wait()
    raise AssertionError("the event is never set")
