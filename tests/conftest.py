"""Fixtures of all rooms: a fresh database and an empty Redis for every test, from servers that start once."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from xdist.scheduler import LoadScopeScheduling

from storage.broker.redis_client import connect
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.database.migration import migrate
from tests.services import PostgresServer, running_postgres, running_redis

# What must not run twice at once: real platforms, which share one, and whose tests also measure times.
# Real tokenizers are loaded once, by one process.
GROUPS = {"e2e": "platform", "real": "real"}
# Begun first: what takes longest must not begin last. The model's tests wait for the kernels that the first platform
# compiles.
LONGEST_FIRST = ("e2e", "triton", "demo", "real", "api", "model", "workers")


class GroupScheduling(LoadScopeScheduling):
    """pytest-xdist's scheduling with a group of `GROUPS`, or a file, as the unit that one process runs.

    Its own `loadgroup` needs the name of a node, which pytest 9.2 keeps elsewhere than pytest-xdist 3.8 looks for it.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return GROUPS.get(folder_of(path), path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:  # Any: pytest-xdist's Producer
    """How a parallel run divides the tests among its processes."""
    return GroupScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the longest folders to the front."""
    items.sort(key=lambda item: _rank(folder_of(item.nodeid)))


def folder_of(path: str) -> str:
    """The folder of `tests` that a test or file lies in; empty for the files beside this one."""
    parts = path.partition("::")[0].split("/")
    return parts[1] if len(parts) > 2 else ""


def _rank(folder: str) -> int:
    return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder of this run that all its processes share."""
    base = tmp_path_factory.getbasetemp()
    # pytest-xdist gives each of its processes a folder in the run's own.
    shared = (base.parent if hasattr(request.config, "workerinput") else base) / "shared"
    shared.mkdir(exist_ok=True)
    return shared


@pytest.fixture(scope="session")
def redis_server_url() -> Iterator[str]:
    """A Redis that all tests share."""
    with running_redis() as server:
        yield server.url


@pytest.fixture
def redis_url(redis_server_url: str) -> str:
    """The shared Redis, empty."""
    with redis.Redis.from_url(redis_server_url) as client:
        client.flushall()
    return redis_server_url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A connection to the empty Redis."""
    with connect(redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL that all tests share."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """The name of a migrated PostgreSQL database."""
    name = postgres_server.create()
    migrate(postgres_server.url_of(name))
    return name


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A fresh, migrated SQLite database."""
    path = tmp_path / "tokenpost.db"
    shutil.copyfile(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """A fresh, migrated PostgreSQL database."""
    name = postgres_server.create(template=postgres_template)
    yield postgres_server.url_of(name)
    postgres_server.drop(name)


@pytest.fixture(params=["sqlite", "postgres"])
def each_database_url(request: pytest.FixtureRequest) -> str:
    """A fresh, migrated database; the test runs on each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def database_url(each_database_url: str) -> str:
    """The database of the test: of each kind, where a folder or a file does not say otherwise."""
    return each_database_url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The fresh database, opened."""
    opened = Database(database_url)
    yield opened
    opened.dispose()


@pytest.fixture
def sqlite_database(sqlite_url: str) -> Iterator[Database]:
    """A fresh SQLite database, opened."""
    opened = Database(sqlite_url)
    yield opened
    opened.dispose()


@pytest.fixture
def writer(database: Database) -> Iterator[Writer]:
    """A running writer on the fresh database."""
    running = Writer(database)
    running.start()
    yield running
    running.stop()
