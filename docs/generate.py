"""Write the tables of docs/ that repeat the code: `python -m docs.generate`, or `make docs`.

A page keeps its text; what lies between `<!-- NAME: generated -->` and `<!-- end -->` is replaced.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import typer.main
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings
from typer.core import TyperGroup

from api.cli.main import app
from api.cli.settings import CliSettings
from api.protocol.structured.schemas.keywords import keyword_table
from api.server.entry_point import ServerSettings
from api.settings import ApiSettings
from storage.process.logging_setup import LogSettings
from storage.settings import ENV_PREFIX, RequestSettings, StorageSettings
from workers.settings import SweeperSettings, WorkerSettings

FOLDER = Path(__file__).parent
# A variable stands in the first group that has it.
SETTINGS_GROUPS: tuple[tuple[str, type[BaseSettings]], ...] = (
    ("Database, Redis, retention and webhooks: every process", StorageSettings),
    ("Requests: API and CPU worker", RequestSettings),
    ("API", ApiSettings),
    ("HTTP server", ServerSettings),
    ("`tokenpost up` and the other commands", CliSettings),
    ("Generation worker", WorkerSettings),
    ("CPU worker", SweeperSettings),
    ("Logs", LogSettings),
)
# Defaults that the code computes.
_COMPUTED_DEFAULTS = {
    "database_url": "SQLite in the home",
    "redis_url": "the embedded one",
    "pepper": "made in the home",
    "worker_id": "made at each start",
    "model": "`smollm2`, or `demo` where it cannot be fetched",
    "model_folder": "`models` in the home",
    "served_name": "",
    "kv_budget_mb": "as far as memory allows",
    "num_threads": "all cores",
    "webhook_loopback": "`false`; `up` sets it where no key is needed",
    "api_key": "",
    "url": "what runs in the home",
    "webhook_allow": "",
    "cors_origins": "",
}


def settings_page() -> str:
    """The tables of all settings, grouped by the process that reads them."""
    flags, seen, parts = _flag_by_variable(), set[str](), []
    for title, kind in SETTINGS_GROUPS:
        meanings = field_meanings(kind)
        rows = [
            _settings_row(name, field, flags.get(_variable_of(name), ""), meanings.get(name, ""))
            for name, field in kind.model_fields.items()
            if name not in seen
        ]
        seen |= kind.model_fields.keys()
        if rows:
            parts.append(
                "\n".join([f"### {title}", "", "| variable | option | default | meaning |", "|---|---|---|---|", *rows])
            )
    return "\n\n".join(parts)


def field_meanings(kind: type[BaseSettings]) -> dict[str, str]:
    """What the docstring of a settings class says of its fields: lines `name: text` or `name, other: text`."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        names: list[str] = []
        for line in inspect.cleandoc(base.__doc__ or "").splitlines()[1:]:
            opened = re.match(r"((?:[a-z_0-9]+, )*[a-z_0-9]+):\s+(.*)", line)
            if opened is not None:
                names = opened[1].split(", ")
                found |= dict.fromkeys(names, opened[2])
            elif line.startswith(" ") and names:
                found |= {name: f"{found[name]} {line.strip()}" for name in names}
            else:
                names = []
    return found


def _settings_row(name: str, field: FieldInfo, flag: str, meaning: str) -> str:
    default = _COMPUTED_DEFAULTS.get(name)
    if default is None:
        value = field.default
        default = (
            ""
            if value is None or value == ""
            else f"`{str(value).lower() if isinstance(value, bool) else _plain(value)}`"
        )
    limits = limits_of(field)
    shown = " ".join(part for part in (default, f"({limits})" if limits else "") if part)
    return f"| `{_variable_of(name)}` | {f'`{flag}`' if flag else ''} | {shown} | {meaning} |"


def limits_of(field: FieldInfo) -> str:
    """The range of a number in words: `0 to 65535`, `1 or more`, `above 0`; empty where there is none."""
    bounds = {
        key: getattr(one, key)
        for one in field.metadata
        for key in ("ge", "gt", "le", "min_length")
        if hasattr(one, key)
    }
    if "le" in bounds:
        return f"{bounds.get('ge', bounds.get('gt'))} to {bounds['le']}"
    if "ge" in bounds:
        return f"{bounds['ge']} or more"
    return f"above {bounds['gt']}" if "gt" in bounds else ""


def _plain(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _variable_of(name: str) -> str:
    return ENV_PREFIX + name.upper()


def _flag_by_variable() -> dict[str, str]:
    found: dict[str, str] = {}
    for command in _commands(typer.main.get_command(app)):
        for option in command.params:
            if isinstance(option.envvar, str):
                found.setdefault(option.envvar, option.opts[0])
    return found


def _commands(command: click.Command) -> Iterator[click.Command]:
    yield command
    if isinstance(command, TyperGroup):
        # Asking for the names imports all commands.
        command.list_commands(typer.Context(command))
        for child in command.commands.values():
            yield from _commands(child)


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "settings": ("settings.md", settings_page),
    "keywords": ("structured-answers.md", keyword_table),
}


def generated(text: str, name: str, table: str) -> str:
    """The page's text with its table replaced; ValueError where the page has no place for it."""
    place = re.compile(rf"(<!-- {name}: generated -->\n).*?(<!-- end -->)", re.DOTALL)
    if place.search(text) is None:
        raise ValueError(f"no '<!-- {name}: generated -->' in the page")
    return place.sub(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", text)


def main() -> None:
    """Write every table into its page."""
    for name, (page, table) in TABLES.items():
        path = FOLDER / page
        path.write_text(generated(path.read_text(), name, table()))
        sys.stdout.write(f"{path.name}: {name}\n")


if __name__ == "__main__":
    main()
