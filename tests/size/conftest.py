"""Databases of the tests of size, and the table of what they saw."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.services import PostgresServer, RedisServer, running_redis
from tests.size.figures import Figures

MakeDatabase = Callable[[], str]
_FIGURES = pytest.StashKey[Figures]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make size` names this folder, and so this option is known there."""
    parser.addoption("--size", action="store_true", help="run the tests that fill a database with a million jobs")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = Figures()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the large ones out, unless they are asked for."""
    if config.getoption("--size", default=False):
        return
    large = [item for item in items if item.get_closest_marker("at_size")]
    config.hook.pytest_deselected(items=large)
    items[:] = [item for item in items if item not in large]


def pytest_terminal_summary(config: pytest.Config) -> None:
    config.stash[_FIGURES].print()


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Figures:
    """What is printed at the end."""
    return pytestconfig.stash[_FIGURES]


@pytest.fixture(params=["sqlite", "postgres"])
def make_database(request: pytest.FixtureRequest, sqlite_template: Path, tmp_path: Path) -> Iterator[MakeDatabase]:
    """Makes fresh, migrated databases of one kind."""
    made: list[str] = []
    if request.param == "sqlite":

        def make_sqlite() -> str:
            path = tmp_path / f"{len(made)}.db"
            made.append(str(shutil.copyfile(sqlite_template, path)))
            return f"sqlite:///{path}"

        yield make_sqlite
        for path in made:
            Path(path).unlink()
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    template: str = request.getfixturevalue("postgres_template")

    def make_postgres() -> str:
        made.append(server.create(template=template))
        return server.url_of(made[-1])

    yield make_postgres
    for name in made:
        server.drop(name)


@pytest.fixture
def other_redis() -> Iterator[RedisServer]:
    """A second Redis."""
    with running_redis() as server:
        yield server
