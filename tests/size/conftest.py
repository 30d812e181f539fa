"""Databases of the tests of size, and the table of what they saw."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.services import PostgresServer, running_redis
from tests.size.figures import Figures

MakeDatabase = Callable[[], str]
MakeRedis = Callable[[], str]
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


@pytest.fixture
def make_sqlite(sqlite_template: Path, tmp_path: Path) -> MakeDatabase:
    """Makes fresh, migrated SQLite databases."""
    names = (f"{number}.db" for number in itertools.count())
    return lambda: f"sqlite:///{shutil.copyfile(sqlite_template, tmp_path / next(names))}"


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def make_database(
    request: pytest.FixtureRequest, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeDatabase]:
    """Makes fresh, migrated databases of one kind, which the tests of a file share."""
    if request.param == "sqlite":
        folder = tmp_path_factory.mktemp("size")
        names = (f"{number}.db" for number in itertools.count())
        yield lambda: f"sqlite:///{shutil.copyfile(sqlite_template, folder / next(names))}"
        shutil.rmtree(folder)
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    template: str = request.getfixturevalue("postgres_template")
    made: list[str] = []

    def make() -> str:
        made.append(server.create(template=template))
        return server.url_of(made[-1])

    yield make
    for name in made:
        server.drop(name)


@pytest.fixture(scope="module")
def make_redis() -> Iterator[MakeRedis]:
    """Makes empty Redis servers, each at a URL."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(running_redis()).url
