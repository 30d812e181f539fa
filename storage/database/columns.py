"""Column types that read the same on SQLite and PostgreSQL."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Generic, TypeVar

from sqlalchemy import DateTime, Dialect, String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

E = TypeVar("E", bound=StrEnum)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime; SQLite, which has no time zones, stores UTC text that sorts by time."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        assert value.tzinfo is not None, "a row needs an aware datetime"
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class EnumText(TypeDecorator[E], Generic[E]):
    """A StrEnum kept as its text: a new member needs no migration, and rows read well."""

    impl = String
    cache_ok = True

    def __init__(self, enum: type[E]) -> None:
        super().__init__()
        self.enum = enum

    def process_bind_param(self, value: E | str | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> E | None:
        return None if value is None else self.enum(value)

    def coerce_compared_value(self, op: object, value: object) -> TypeEngine[E]:
        return self


class SecondsAfter(FunctionElement[datetime]):
    """SQL for the moment that lies `seconds` after `moment`; both are column elements."""

    inherit_cache = True
    type = UtcDateTime()

    def __init__(self, moment: ColumnElement[datetime], seconds: ColumnElement[int] | ColumnElement[float]) -> None:
        super().__init__(moment, seconds)


class DatabaseNow(FunctionElement[datetime]):
    """SQL for this moment by the database's clock, the one that all processes share."""

    inherit_cache = True
    type = UtcDateTime()


@compiles(DatabaseNow, "sqlite")
def _now_sqlite(element: DatabaseNow, compiler: SQLCompiler, **kw: object) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'"


@compiles(DatabaseNow, "postgresql")
def _now_postgresql(element: DatabaseNow, compiler: SQLCompiler, **kw: object) -> str:
    return "now()"


@compiles(SecondsAfter, "sqlite")
def _seconds_after_sqlite(element: SecondsAfter, compiler: SQLCompiler, **kw: object) -> str:
    moment, seconds = (compiler.process(clause, **kw) for clause in element.clauses)
    # %f has milliseconds; three more zeros give the length of UtcDateTime's text, so that the two compare.
    return f"strftime('%Y-%m-%d %H:%M:%f', {moment}, '+' || {seconds} || ' seconds') || '000'"


@compiles(SecondsAfter, "postgresql")
def _seconds_after_postgresql(element: SecondsAfter, compiler: SQLCompiler, **kw: object) -> str:
    moment, seconds = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({moment} + make_interval(secs => {seconds}))"
