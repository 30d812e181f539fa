"""The work of SQLite in instructions of its virtual machine: the same on every machine, however busy it is."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Dialect, Engine, event


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

    class Counted(sqlite3.Connection):
        """A connection with one handler: the platform's own, which ends slow reads, is left out."""

        def __init__(self, *arguments: Any, **options: Any) -> None:  # Any: as the driver's own
            super().__init__(*arguments, **options)
            super().set_progress_handler(steps._add_one, 1)

        def set_progress_handler(self, *handler: object) -> None:
            """Keep the one that counts."""

    def on_connect(dialect: Dialect, entry: object, arguments: object, options: dict[str, object]) -> None:
        if dialect.name == "sqlite":
            options["factory"] = Counted

    event.listen(Engine, "do_connect", on_connect)
    try:
        yield steps
    finally:
        event.remove(Engine, "do_connect", on_connect)
