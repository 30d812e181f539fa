"""Operator commands: `ps`, `doctor` and `db`."""

import socket
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from api.cli.commands.doctor import Finding, examine_device, examine_infrastructure, examine_models
from api.cli.commands.ps import EngineView, ProcessView, find_running, list_processes
from api.cli.console import age, make_console, print_json, print_line, print_table, utc_now
from api.cli.models.local_models import ModelFolder
from api.cli.open_database import NothingHere, location_of, opened, opened_or_made
from api.cli.options import MODEL_HELP, DatabaseOption, HomeOption, JsonOption, RedisOption
from api.cli.settings import CliSettings, Location, model_folder_of
from storage.fleet import workers
from storage.fleet.tables import Worker

database_app = typer.Typer(no_args_is_help=True, help="Look after the database.")


@database_app.callback()
def database_() -> None:
    """Keep `upgrade` a command of its own, though it is the only one."""


@database_app.command("upgrade")
def upgrade(home: HomeOption = None, database_url: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """Bring the database's tables to this version; harmless when they are."""
    with opened_or_made(location_of(home, database_url)):
        pass
    if as_json:
        print_json({"is_current": True})
    else:
        print_line("The database is up to date.")


def ps(
    home: HomeOption = None,
    database_url: DatabaseOption = None,
    is_here: Annotated[
        bool, typer.Option("--here", help="Only this machine's processes; exit code 1 where none runs.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the platform's processes and their state."""
    location = location_of(home, database_url)
    rows, alive = _list_workers(location, CliSettings.read().lease_s)
    views = list_processes(find_running(location), rows, alive)
    if is_here:
        views = [view for view in views if view.host in (None, socket.gethostname())]
    if as_json:
        print_json(views)
    else:
        _print_processes(views, empty=f"Nothing runs on {location.home.path}.")
    if is_here and not views:
        raise typer.Exit(1)


def _print_processes(views: Sequence[ProcessView], *, empty: str) -> None:
    now = utc_now()
    lines = [
        (view.role, view.model, view.pid, view.state, age(view.since, now), view.running, view.restarts, view.host)
        for view in views
    ]
    columns = ("ROLE", "MODEL", "PID", "STATE", "SINCE", "JOBS", "RESTARTS", "HOST")
    print_table(columns, lines, empty=empty)
    engines = [(view, engine) for view in views if (engine := view.engine_view) is not None]
    if engines:
        print_line("")
        _print_engines(engines)


def _print_engines(engines: Sequence[tuple[ProcessView, EngineView]]) -> None:
    lines = [
        (
            view.model,
            view.pid,
            engine.num_running,
            engine.num_waiting,
            f"{engine.num_blocks_used}/{engine.num_blocks}",
            None if engine.hit_rate is None else f"{engine.hit_rate:.0%}",
            engine.num_preemptions,
            engine.num_output_tokens,
        )
        for view, engine in engines
    ]
    columns = ("ENGINE", "PID", "RUNNING", "WAITING", "BLOCKS", "CACHE HITS", "PREEMPTED", "TOKENS OUT")
    print_table(columns, lines, empty="")


def doctor(
    model: Annotated[
        list[str] | None, typer.Option("--model", metavar="MODEL", help=f"{MODEL_HELP} May be given again.")
    ] = None,
    home: HomeOption = None,
    redis_url: RedisOption = None,
    database_url: DatabaseOption = None,
    is_infrastructure_only: Annotated[
        bool,
        typer.Option("--infrastructure", "--ground", help="Check only disk, Redis, database and pepper."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check what the platform needs, and say what to do."""
    location = location_of(home, database_url, redis_url)
    settings = CliSettings.read()
    findings = examine_infrastructure(location, settings)
    if not is_infrastructure_only:
        folder = ModelFolder(path=model_folder_of(settings, location.home))
        findings += [*examine_models(model or [], folder), examine_device()]
    if as_json:
        print_json({"is_ok": all(finding.is_ok for finding in findings), "findings": findings})
    else:
        for finding in findings:
            _print_finding(finding)
    if not all(finding.is_ok for finding in findings):
        raise typer.Exit(1)


def _list_workers(location: Location, lease_s: float) -> tuple[list[Worker], set[str]]:
    """All workers, and the ids of live ones."""
    try:
        with opened(location) as database, database.connect() as connection:
            alive = {worker.id for worker in workers.list_alive(connection, lease_s)}
            return workers.list_workers(connection), alive
    except NothingHere:
        return [], set()


def _print_finding(finding: Finding) -> None:
    mark = ("ok      ", "green") if finding.is_ok else ("trouble ", "bold red")
    make_console().print(Text.assemble(mark, f"{finding.name:<9} {finding.fact}"))
    if finding.advice is not None:
        print_line(f"{'':<18}-> {finding.advice}")
