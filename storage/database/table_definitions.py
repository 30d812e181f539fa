"""Helpers of all table definitions."""

from sqlalchemy import Index, Table, text
from sqlmodel import SQLModel


def partial_index(name: str, condition: str, *columns: str, is_unique: bool = False) -> Index:
    """An index of the rows that meet `condition`, on SQLite and on PostgreSQL."""
    where = text(condition)
    return Index(name, *columns, unique=is_unique, sqlite_where=where, postgresql_where=where)


def table_of(row: type[SQLModel]) -> Table:
    """The SQLAlchemy table behind a row class."""
    return SQLModel.metadata.tables[str(row.__tablename__)]
