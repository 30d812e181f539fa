"""Readers who filter a great many stored chats by metadata that none has, beside callers who poll."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.size.client import Client
from tests.size.conftest import MakeDatabase, MakeRedis
from tests.size.figures import Figure, Figures, disturbed_p50_s
from tests.size.processes import running_api
from tests.size.stocks import fill

pytestmark = [pytest.mark.at_size, pytest.mark.timeout(900)]

NUM_CHATS = 200_000
NUM_READERS = 8
# The readers share two cores with the process; what must not grow is what waits behind a read.
MOST = 5.0


@contextmanager
def readers(port: int, statuses: list[int]) -> Iterator[None]:
    """Callers who filter without a pause; `statuses` gets what they are answered."""
    stopping = threading.Event()

    def read() -> None:
        with Client(port) as client:
            while not stopping.is_set():
                statuses.append(client.get("/v1/chat/completions?limit=20&metadata[run]=none").status)

    threads = [threading.Thread(target=read, daemon=True) for _ in range(NUM_READERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join(60)


def test_filters_over_many_chats_leave_polls_alone(
    make_database: MakeDatabase, make_redis: MakeRedis, figures: Figures
) -> None:
    url, redis_url = make_database(), make_redis()
    stock = fill(url, redis_url, stored=2 * NUM_CHATS, queued=1)
    statuses: list[int] = []
    with running_api(url, redis_url) as api, Client(api.port) as client:

        def poll(number: int) -> None:
            assert client.get(f"/v1/responses/{stock.responses[number % 50]}").status == 200

        quiet_s, beside_s = disturbed_p50_s(poll, lambda: readers(api.port, statuses))

    kind = url.partition(":")[0].partition("+")[0]
    figures.check(
        Figure(
            what=f"{kind}: poll, p50 beside {NUM_READERS} readers who filter {NUM_CHATS:,} chats by metadata",
            seen=beside_s / quiet_s,
            most=MOST,
            note=f"{1e3 * quiet_s:.2f} and {1e3 * beside_s:.2f} ms",
        ),
        Figure(
            what=f"{kind}: such filters that are answered",
            seen=statuses.count(200) / len(statuses),
            least=1.0,
            unit="of all",
            note=f"{len(statuses)} asked",
        ),
    )
