"""What commands say: lines and tables for people, JSON for programs, one clear line for a mistake."""

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


class _PatientConsole(Console):
    """A console whose reader may go away: the supervisor must still stop its children in order."""

    def on_broken_pipe(self) -> None:
        """Go on without a reader."""


def make_console() -> Console:
    """The terminal that people read."""
    return _PatientConsole(highlight=False, markup=False, emoji=False, soft_wrap=True)


def say(text: str) -> None:
    """Print one line as it is, never broken, so that it can be pasted."""
    make_console().print(text)


def say_json(value: object) -> None:
    """Print a value as indented JSON; times are ISO 8601 in UTC."""
    sys.stdout.write(json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False) + "\n")


def say_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Print rows under headings, or the sentence for none."""
    if not rows:
        say(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="fold")
    for row in rows:
        table.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))
    # Into a pipe as wide as the rows are: a program or grep reads it, and no cell may be cut.
    console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 500)
    console.print(table)


def say_fields(fields: Mapping[str, object]) -> None:
    """Print names and values, one a line, the values below each other."""
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        say(f"{name:<{width}}  {'-' if value is None else value}")


def complain(message: str) -> None:
    """Print one line about a mistake to stderr."""
    Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True).print(
        Text.assemble(("tokenpost: ", "bold red"), message)
    )


def fail(message: str, *, code: int = 1) -> NoReturn:
    """End the command with one line about the mistake."""
    complain(message)
    raise typer.Exit(code)


def age(moment: datetime, now: datetime) -> str:
    """How long ago a moment was, in its largest unit: `12 s`, `5 min`, `3 h`, `2 d`."""
    seconds = max((now - moment).total_seconds(), 0)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def utc_now() -> datetime:
    """This moment."""
    return datetime.now(UTC)


def parse_duration(text: str) -> timedelta:
    """A span such as `90s`, `15m`, `12h`, `30d`, `2w`; SettingInvalid for anything else."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})([smhdw])", text)
    if match is None:
        raise SettingInvalid(f"'{text}' is no span of time such as 12h, 30d or 2w")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
