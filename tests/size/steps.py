"""The work of SQLite in instructions of its virtual machine: the same on every machine, however busy it is."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry


class Steps:
    """How many instructions the connections ran that were opened since."""

    def __init__(self) -> None:
        self.count = 0

    def of(self, action: Callable[[], object]) -> int:
        """How many an action took."""
        before = self.count
        action()
        return self.count - before

    def _add_one(self) -> int:
        self.count += 1
        return 0


@contextmanager
def counted_steps() -> Iterator[Steps]:
    """Counts on every SQLite connection of this process that is opened meanwhile."""
    steps = Steps()

    def on_connect(driver: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        assert isinstance(driver, sqlite3.Connection)
        driver.set_progress_handler(steps._add_one, 1)

    event.listen(Engine, "connect", on_connect)
    try:
        yield steps
    finally:
        event.remove(Engine, "connect", on_connect)
