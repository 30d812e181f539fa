"""Bulk INSERT: many rows in one statement, from SQL and parameter conversions that are prepared once.

SQLAlchemy's `executemany` runs one statement for each row. On SQLite each of them lets go of the interpreter lock, and
a busy event loop gives it back late.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Table, insert
from sqlmodel import SQLModel

from storage.database.table_definitions import table_of

Values = Mapping[str, object]
# So many rows of the largest requests stay below the gigabyte that PostgreSQL takes at once, and drivers keep a parsed
# statement for each number of rows.
_MAX_ROWS = 32
_PARAMSTYLES = {"sqlite": "qmark", "postgresql": "format"}


def insert_rows(c: Connection, rows: Iterable[tuple[type[SQLModel], Values]]) -> None:
    """Insert rows of several tables in one transaction; those of a table have the same columns."""
    by_table: dict[type[SQLModel], list[dict[str, object]]] = {}
    for table, values in rows:
        by_table.setdefault(table, []).append(dict(values))
    for table, several in by_table.items():
        c.execute(insert(table_of(table)), several)


class BulkInserts:
    """The bulk inserts of one database, each prepared when it is first needed."""

    def __init__(self) -> None:
        self._prepared: dict[tuple[Table, tuple[str, ...]], BulkInsert] = {}

    def execute(self, connection: Connection, table: Table, rows: Sequence[Values]) -> None:
        """Insert the rows, at least one, in their order; all have the same columns."""
        names = tuple(rows[0])
        prepared = self._prepared.get((table, names))
        if prepared is None:
            prepared = self._prepared[table, names] = BulkInsert(connection.dialect, table, names)
        prepared.execute(connection, rows)


class BulkInsert:
    """The INSERT of rows that have the same columns into one table."""

    def __init__(self, dialect: Dialect, table: Table, names: Sequence[str]) -> None:
        """names: keys of the columns that every row gives; at least two"""
        positional: Dialect = type(dialect)(paramstyle=_PARAMSTYLES[dialect.name])  # type: ignore[call-arg]
        compiled = insert(table).compile(dialect=positional, column_keys=list(names))
        order = [str(name) for name in compiled.positiontup or ()]
        assert set(order) == set(names), f"{table.name}: every column with a default in Python must be given"
        self._head, _, self._row = str(compiled).partition(" VALUES ")
        self._take: Callable[[Values], tuple[object, ...]] = itemgetter(*order)
        self._conversions = list(_conversions(dialect, table, order))
        self._statements: dict[int, str] = {}

    def execute(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Insert the rows in their order."""
        for start in range(0, len(rows), _MAX_ROWS):
            some = rows[start : start + _MAX_ROWS]
            parameters = [value for row in some for value in self._parameters(row)]
            connection.exec_driver_sql(self._statement(len(some)), tuple(parameters))

    def _parameters(self, row: Values) -> list[object]:
        values = list(self._take(row))
        for index, convert in self._conversions:
            values[index] = convert(values[index])
        return values

    def _statement(self, num_rows: int) -> str:
        statement = self._statements.get(num_rows)
        if statement is None:
            statement = self._statements[num_rows] = f"{self._head} VALUES {', '.join([self._row] * num_rows)}"
        return statement


# Any: a column's conversion takes what the column's type takes.
def _conversions(dialect: Dialect, table: Table, names: Sequence[str]) -> Iterator[tuple[int, Callable[[Any], object]]]:
    """The positions of the parameters that the driver does not take as they are, each with its conversion."""
    for index, name in enumerate(names):
        convert = table.c[name].type.dialect_impl(dialect).bind_processor(dialect)
        if convert is not None:
            yield index, convert
