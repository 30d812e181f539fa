"""`tokenpost webhooks listen`: an endpoint on this machine that lives as long as the command."""

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

import msgspec

from api.cli.commands.webhook_outcome import answer_of, first_attempt
from api.cli.commands.webhook_receiver import Received, receiving
from api.cli.console import complain, say, utc_now
from api.cli.supervisor.listener import listen as listen_on
from storage.database.connections import Database
from storage.errors import WebhookEndpointNotFound
from storage.ids import new_id
from storage.webhooks import deliveries, endpoints
from storage.webhooks.event_types import EVENT_TYPES
from storage.webhooks.signing import new_secret
from storage.webhooks.tables import WebhookEndpoint

_HOST = "127.0.0.1"
_NAME = "tokenpost webhooks listen"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_TRIAL_PATIENCE_S = 10.0


class _Stopped(BaseException):
    """A signal says that it is enough."""


class _Screen:
    """Prints what comes, one line each: events to stdout, everything else to stderr."""

    def __init__(self, *, as_json: bool) -> None:
        self.trial_id: str | None = None
        self._as_json = as_json

    def show(self, received: Received) -> None:
        event = received.event
        if event is None:
            complain(f"refused what came: {received.refusal}")
        elif event.get("id") == self.trial_id:
            complain("the platform reaches this receiver")
        elif self._as_json:
            sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
            sys.stdout.flush()
        else:
            data = event.get("data")
            job_id = data.get("id") if isinstance(data, dict) else None
            say(f"{utc_now():%H:%M:%S}  {event.get('type')}  {job_id or '-'}  {event.get('id')}")


def listen(
    database: Database, owner: str, event_types: Sequence[str], *, port: int, makes_endpoint: bool, as_json: bool
) -> None:
    """Print what comes until Ctrl-C or SIGTERM; the endpoint that was made for it is gone afterwards."""
    with _until_stopped(), listen_on(_HOST, port) as listener:
        url = f"http://{_HOST}:{listener.getsockname()[1]}/"
        own_secret, screen = new_secret(), _Screen(as_json=as_json)
        with database.begin() as connection:
            default_secret = endpoints.default_secret(connection, owner, new_secret(), utc_now())
        with receiving(listener, [own_secret, default_secret], screen.show):
            if not makes_endpoint:
                complain(f"listening on {url} for the jobs of {owner} that name it; Ctrl-C ends it")
                _wait_for_ever()
            with _endpoint(database, owner, url, event_types, own_secret) as endpoint:
                complain(f"listening on {url} as {endpoint.id} of {owner}; Ctrl-C ends it")
                _try(database, endpoint, screen)
                _wait_for_ever()


@contextmanager
def _until_stopped() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> NoReturn:
        # What follows is short, and a second Ctrl-C must not leave the endpoint behind.
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
    """An endpoint that exists as long as the block; one that a killed receiver left at this URL goes, too."""
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
            complain(f"stopped; {endpoint_id} is deleted")


def _try(database: Database, endpoint: WebhookEndpoint, screen: _Screen) -> None:
    """Say whether events reach this receiver at all."""
    event_type = (endpoint.event_types or EVENT_TYPES)[0]
    with database.begin() as connection:
        trial = deliveries.put_test(connection, endpoint, event_type, utc_now())
        # Before the commit, so before anybody can send it.
        screen.trial_id = trial.event_id
    attempt = first_attempt(database, trial.id, patience_s=_TRIAL_PATIENCE_S)
    if attempt is None:
        complain("no CPU worker has sent a trial event yet; does the platform run?")
    elif attempt.status_code is None:
        complain(f"the platform does not reach this receiver: {answer_of(attempt)}")
        complain("where it asks for keys, its CPU worker needs TOKENPOST_WEBHOOK_ALLOW=127.0.0.1")


def _wait_for_ever() -> NoReturn:
    threading.Event().wait()
    raise AssertionError("nobody sets the event")
