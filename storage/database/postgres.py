"""What PostgreSQL needs of its connections: an end to waiting. Needs the `postgres` extra."""

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import Engine, event

T = TypeVar("T")


def set_up(engine: Engine, answer_within_s: float | None) -> None:
    """Let every connection of the engine give up a server that does not answer; None waits for ever.

    A network that swallows packets says nothing, and libpq would wait for what was lost until somebody ends it.
    """

    def connect(
        _dialect: object,
        _entry: object,
        arguments: list[Any],  # Any, twice: what psycopg itself takes
        keywords: dict[str, Any],
    ) -> _PromptConnection:
        connection = _PromptConnection.connect(*arguments, **keywords)
        connection.patience_s = answer_within_s
        return connection

    event.listen(engine, "do_connect", connect)


class _PromptConnection(psycopg.Connection[Any]):  # Any: rows of any shape
    """Ends itself with a statement whose answer does not come: what came of that is not known any more."""

    patience_s: float | None = None

    def wait(self, gen: PQGen[T], *arguments: Any, **keywords: Any) -> T:  # Any: passed on as psycopg gives them
        if self.patience_s is not None:
            gen = _bounded(gen, self, time.monotonic() + self.patience_s)
        return super().wait(gen, *arguments, **keywords)


def _bounded(gen: PQGen[T], connection: _PromptConnection, deadline: float) -> Generator[Any, Any, T]:
    """The same generator until the deadline; psycopg resumes it several times a second, ready or not."""
    is_ready: Any = None  # Any: between psycopg and its generator
    try:
        while True:
            is_ready = yield gen.send(is_ready)
            if not is_ready and time.monotonic() >= deadline:
                connection.pgconn.finish()
                raise psycopg.OperationalError("the server did not answer in time")
    except StopIteration as done:
        value: T = done.value
        return value
