"""Command output: lines and tables for people, JSON for programs, one line for an error."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from storage.errors import SettingInvalid

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class _PipeSafeConsole(Console):
    """A console that survives a broken pipe: the supervisor must still stop its children in order."""

    def on_broken_pipe(self) -> None:
        """Ignore it."""


def make_console() -> Console:
    """The console on stdout."""
    return _PipeSafeConsole(highlight=False, markup=False, emoji=False, soft_wrap=True)


def make_error_console() -> Console:
    """The console on stderr: progress and errors, so that stdout holds the result alone."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def print_line(text: str) -> None:
    """Print one line without wrapping, so that it can be pasted."""
    make_console().print(text)


def print_json(value: object) -> None:
    """Print a value as indented JSON; times are ISO 8601 in UTC."""
    sys.stdout.write(json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Print rows under headings, or `empty` when there are none."""
    if not rows:
        print_line(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="fold")
    for row in rows:
        table.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))
    # Into a pipe the table is as wide as its rows, so that no cell is cut for programs.
    console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 500)
    console.print(table)


def print_fields(fields: Mapping[str, object]) -> None:
    """Print names and values, one a line, in two columns."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        print_line(f"{name:<{width}}  {'-' if value is None else value}")


def print_progress(text: str) -> None:
    """Print one line about work in progress to stderr."""
    make_error_console().print(text)


def print_error(message: str) -> None:
    """Print one error line to stderr."""
    make_error_console().print(Text.assemble(("tokenpost: ", "bold red"), message))


def fail(message: str, *, code: int = 1) -> NoReturn:
    """Print one error line and end the command."""
    print_error(message)
    raise typer.Exit(code)


def age(moment: datetime, now: datetime) -> str:
    """The time since a moment, in its largest unit: `12 s`, `5 min`, `3 h`, `2 d`."""
    seconds = max((now - moment).total_seconds(), 0)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def utc_now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)


def parse_duration(text: str) -> timedelta:
    """A duration such as `90s`, `15m`, `12h`, `30d`, `2w`; SettingInvalid for anything else."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})([smhdw])", text)
    if match is None:
        raise SettingInvalid(f"'{text}' is not a duration such as 12h, 30d or 2w")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
