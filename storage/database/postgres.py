"""PostgreSQL connections with an answer timeout. Needs the `postgres` extra."""

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.abc import PQGen
from sqlalchemy import Engine, event

T = TypeVar("T")
_SERVER_GRACE_S = 0.5


def set_up(engine: Engine, answer_within_s: float | None) -> None:
    """Close a connection whose server does not answer in time; None is no limit.

    When a network drops packets silently, libpq would wait without end.
    """

    def connect(
        _dialect: object,
        _entry: object,
        arguments: list[Any],  # Any, twice: what psycopg itself takes
        keywords: dict[str, Any],
    ) -> _PromptConnection:
        connection = _PromptConnection.connect(*arguments, **keywords)
        connection.patience_s = answer_within_s
        if answer_within_s is not None:
            # A closed connection does not end its statement on the server. Later than our own timeout, which says more.
            timeout_ms = int((answer_within_s + _SERVER_GRACE_S) * 1000)
            connection.execute(sql.SQL("SET statement_timeout = {}").format(timeout_ms))
            connection.commit()
        return connection

    event.listen(engine, "do_connect", connect)


class _PromptConnection(psycopg.Connection[Any]):  # Any: rows of any shape
    """Closes itself when a statement is not answered in time; its outcome is then unknown."""

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
