"""A running API with a worker behind it, and clients for it."""

from collections.abc import Iterator

import httpx2
import openai
import pytest

from api.settings import ApiSettings
from tests.api.fake_sender import FakeSender, sending
from tests.api.fake_worker import FakeWorker, working
from tests.api.server import Server, serving
from tests.plain_http import http_client, sdk_client


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """SQLite is enough where it is not the database that is tested."""
    return sqlite_url


@pytest.fixture
def worker(database_url: str, redis_url: str) -> Iterator[FakeWorker]:
    """A worker of the model `demo`."""
    with working(database_url, redis_url) as running:
        yield running


@pytest.fixture
def settings(database_url: str, redis_url: str) -> ApiSettings:
    """Settings of the API under test."""
    # The worker of the tests beats in a thread; a machine that is busy for seconds must not make it count as dead.
    # Nor must a disk that stands still for a moment refuse a request.
    return ApiSettings(
        database_url=database_url,
        redis_url=redis_url,
        pepper="pepper-of-a-test",
        refresh_s=0.1,
        lease_s=60,
        storage_timeout_s=10,
    )


@pytest.fixture
def server(settings: ApiSettings, worker: FakeWorker) -> Iterator[Server]:
    """A running API, with a worker behind it."""
    with serving(settings) as running:
        yield running


@pytest.fixture
def sender(database_url: str, server: Server) -> Iterator[FakeSender]:
    """Somebody who sends to webhooks."""
    with sending(database_url) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    """The unmodified SDK."""
    with sdk_client(f"{server.url}/v1") as sdk:
        yield sdk


@pytest.fixture
def http(server: Server) -> Iterator[httpx2.Client]:
    """A bare HTTP client."""
    with http_client(server.url) as bare:
        yield bare


@pytest.fixture
def other_server(settings: ApiSettings, server: Server) -> Iterator[Server]:
    """A second process of the API, on the same ground; it starts when the first one runs."""
    with serving(settings) as running:
        yield running


@pytest.fixture
def elsewhere(other_server: Server) -> Iterator[httpx2.Client]:
    """A bare HTTP client of the second process."""
    with http_client(other_server.url) as bare:
        yield bare
