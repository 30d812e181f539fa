"""Helpers of all table definitions."""

from sqlalchemy import Index, Table, text
from sqlmodel import SQLModel


def partial_index(name: str, condition: str, *columns: str) -> Index:
    """An index of the rows that meet `condition`, on SQLite and on PostgreSQL."""
    return Index(name, *columns, sqlite_where=text(condition), postgresql_where=text(condition))


def table_of(row: type[SQLModel]) -> Table:
    """The SQLAlchemy table behind a row class."""
    return SQLModel.metadata.tables[str(row.__tablename__)]
