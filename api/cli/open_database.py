"""Opens the database and Redis of the platform that a command addresses."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection

from api.cli.settings import CliSettings, Location, find_location
from storage.broker import redis_client
from storage.database.connections import Database
from storage.database.schema_version import is_current, is_migrated
from storage.errors import PlatformError, StorageUnavailable
from storage.jobs.cancellation import Write

T = TypeVar("T")


class NothingHere(PlatformError):
    """No platform was ever started in this home."""

    code = "nothing_here"


class SchemaOutdated(PlatformError):
    """The database's tables are of another version than this program."""

    code = "schema_outdated"


def location_of(home: Path | None, database_url: str | None = None, redis_url: str | None = None) -> Location:
    """The location of the platform that a command's options select."""
    return find_location(CliSettings.read(), home=home, database_url=database_url, redis_url=redis_url)


@contextmanager
def opened(location: Location) -> Iterator[Database]:
    """The location's database, with a current schema; NothingHere or SchemaOutdated otherwise."""
    path = location.database_url.removeprefix("sqlite:///")
    if path != location.database_url and not Path(path).exists():
        raise NothingHere(
            f"there is no platform in {location.home.path} yet; `tokenpost up` makes one, --home names another"
        )
    database = Database(location.database_url)
    try:
        if not is_current(database):
            raise SchemaOutdated("the database's tables are of another version; run: tokenpost db upgrade")
        yield database
    finally:
        database.dispose()


@contextmanager
def opened_or_made(location: Location) -> Iterator[Database]:
    """The location's database, created or migrated to the current schema."""
    location.home.create()
    database = Database(location.database_url)
    try:
        if not is_migrated(database):
            # Imported here because it imports alembic, which most starts do not need.
            importlib.import_module("api.cli.schema_upgrade").upgrade_schema(location.database_url)
        yield database
    finally:
        database.dispose()


@contextmanager
def opened_redis(location: Location) -> Iterator[Redis]:
    """The location's Redis client; StorageUnavailable when Redis does not answer in the block."""
    client = redis_client.connect(location.redis_url)
    try:
        yield client
    except RedisError as error:
        raise StorageUnavailable(f"Redis does not answer: {error}") from error
    finally:
        client.close()


def writing(database: Database) -> Write:
    """Runs each operation in a transaction of its own."""

    def write(operation: Callable[[Connection], T]) -> T:
        with database.begin() as connection:
            return operation(connection)

    return write
