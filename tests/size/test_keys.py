"""Ten thousand API keys, and callers who show keys that do not exist."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from statistics import median

import pytest

from storage.accounts import keys
from storage.database.connections import Database
from tests.api.server import serving
from tests.size.client import Client
from tests.size.conftest import MakeDatabase, MakeRedis
from tests.size.figures import Figure, Figures, disturbed_p50_s
from tests.size.processes import running_api
from tests.size.steps import counted_steps
from tests.size.stocks import ACCEPT, fill, settings_of

FEW, MANY, MOST_KEYS = 10, 400, 10_000
MOST = 1.3
NUM_UNKNOWN = 20
_PEPPER = b"a pepper of a size test"


def _make_keys(database_url: str, count: int) -> str:
    """One of so many keys."""
    database = Database(database_url)
    with database.begin() as connection:
        made = [
            keys.create(connection, f"owner-{number}", pepper=_PEPPER, now=datetime.now(UTC)) for number in range(count)
        ]
    database.dispose()
    return made[count // 2].plaintext


def _knock(port: int) -> None:
    with Client(port, f"tp-{secrets.token_urlsafe(32)}") as stranger:
        assert stranger.get("/v1/models").status == 401


def test_an_unknown_key_costs_no_more_beside_many_keys(make_sqlite: MakeDatabase, redis_url: str) -> None:
    steps_by_count = {}
    for count in (FEW, MANY):
        url = make_sqlite()
        known = _make_keys(url, count)
        with counted_steps() as steps, serving(settings_of(url, redis_url, refresh_s=3600)) as server:
            with Client(server.port, known) as client:
                assert client.get("/v1/models").status == 200
            # The server's own periodic reads fall into a few of the requests; the median is a request's work.
            steps_by_count[count] = median(steps.of(lambda port=server.port: _knock(port)) for _ in range(NUM_UNKNOWN))

    assert 0 < steps_by_count[MANY] <= MOST * steps_by_count[FEW], steps_by_count


@contextmanager
def strangers(port: int) -> Iterator[None]:
    """A caller who tries one unknown key after another, fifty a second."""
    stopping = threading.Event()

    def knock() -> None:
        while not stopping.wait(0.02):
            with Client(port, f"tp-{secrets.token_urlsafe(32)}") as client:
                client.get("/v1/models")

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(30)


@pytest.mark.at_size
@pytest.mark.timeout(600)
def test_unknown_keys_slow_nobody_beside_ten_thousand(
    make_database: MakeDatabase, make_redis: MakeRedis, figures: Figures
) -> None:
    url, redis_url = make_database(), make_redis()
    fill(url, redis_url, stored=2, queued=1)
    known = _make_keys(url, MOST_KEYS)
    with running_api(url, redis_url) as api, Client(api.port, known) as client:

        def accept(number: int) -> None:
            assert client.post("/v1/responses", ACCEPT).status == 200

        undisturbed_s, beside_s = disturbed_p50_s(accept, lambda: strangers(api.port))

    kind = url.partition(":")[0].partition("+")[0]
    figures.check(
        Figure(
            what=f"{kind}: accept, p50 beside {MOST_KEYS:,} keys and 50 unknown ones a second",
            seen=beside_s / undisturbed_s,
            most=MOST,
            note=f"{1e3 * undisturbed_s:.2f} and {1e3 * beside_s:.2f} ms",
        )
    )
