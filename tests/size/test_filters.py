"""Readers who filter stored chats by metadata that none has, beside callers who poll: few chats, and a great many."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.size.client import Client
from tests.size.conftest import MakeDatabase, MakeRedis
from tests.size.figures import Figure, Figures, disturbed_p50_s
from tests.size.processes import running_api
from tests.size.stocks import Stock, fill

pytestmark = [pytest.mark.at_size, pytest.mark.timeout(900)]

NUM_CHATS = 200_000
NUM_READERS = 8
NUM_FEW = 100
# The readers keep the process busy in both cases; what must not grow is what waits behind a read.
MOST = 1.5


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


def test_filters_cost_no_more_beside_many_chats(
    make_database: MakeDatabase, make_redis: MakeRedis, figures: Figures
) -> None:
    statuses: list[int] = []
    beside_s: list[float] = []
    for num_chats in (NUM_FEW, NUM_CHATS):
        url, redis_url = make_database(), make_redis()
        stock = fill(url, redis_url, stored=2 * num_chats, queued=1)
        with running_api(url, redis_url) as api, Client(api.port) as client:

            def poll(number: int, client: Client = client, stock: Stock = stock) -> None:
                assert client.get(f"/v1/responses/{stock.responses[number % 50]}").status == 200

            beside_s.append(disturbed_p50_s(poll, lambda port=api.port: readers(port, statuses))[1])  # type: ignore[misc]

    kind = url.partition(":")[0].partition("+")[0]
    figures.check(
        Figure(
            what=f"{kind}: poll, p50 beside {NUM_READERS} readers who filter {NUM_CHATS:,} chats, of {NUM_FEW} chats",
            seen=beside_s[1] / beside_s[0],
            most=MOST,
            note=f"{1e3 * beside_s[0]:.2f} and {1e3 * beside_s[1]:.2f} ms",
        ),
        Figure(
            what=f"{kind}: such filters that are answered",
            seen=statuses.count(200) / len(statuses),
            least=1.0,
            unit="of all",
            note=f"{len(statuses)} asked",
        ),
    )
