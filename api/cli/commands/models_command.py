"""`tokenpost models`: fetch, list, show and remove models."""

import socket
from collections.abc import Iterable
from typing import Annotated

import typer

from api.cli.commands.ps import find_running
from api.cli.console import fail, make_error_console, print_fields, print_json, print_line, print_progress, print_table
from api.cli.models.description import DescriptionMissing, Descriptions
from api.cli.models.fetching import fetch
from api.cli.models.local_models import (
    LocalModel,
    ModelFolder,
    ModelNotHere,
    ModelNotRemovable,
    get_local,
    list_local,
    remove,
)
from api.cli.models.model_argument import parse_models
from api.cli.models.model_views import ModelView, ServedModels, views_of
from api.cli.open_database import NothingHere, location_of, opened
from api.cli.options import DatabaseOption, HomeOption, JsonOption
from api.cli.settings import CliSettings, Location, model_folder_of
from api.cli.supervisor.screen import Screen
from storage.fleet import manifests, workers
from storage.model_manifest import ModelDescription

app = typer.Typer(no_args_is_help=True, help="Fetch, list, show and remove models.")

_NAME_HELP = "As --model takes it: smollm2, ORG/REPO, ORG/REPO:FILE.gguf."
NameArgument = Annotated[str, typer.Argument(metavar="MODEL", help=_NAME_HELP, show_default=False)]


@app.command("pull")
def pull(name: NameArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Fetch a model, so that it can be served without a network."""
    location = location_of(home)
    folder = _folder_of(location)
    [model] = parse_models([name])
    if model.name != name or model.is_local:
        fail(f"'{name}' is nothing to fetch: {_NAME_HELP[0].lower()}{_NAME_HELP[1:]}", code=2)
    location.home.create()
    screen = Screen(make_error_console())
    try:
        fetch(model, folder.files, screen)
    finally:
        screen.quiet()
    _show(get_local(folder, name), folder, ServedModels(), as_json=as_json)


@app.command("list")
def list_models(home: HomeOption = None, database_url: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """List the models on this machine, and every model that a worker ever served."""
    location = location_of(home, database_url)
    folder = _folder_of(location)
    local = list_local(folder)
    views = views_of(_read_served(location), local, _describe(local, folder))
    if as_json:
        print_json(views)
        return
    rows = [
        (
            view.id,
            view.status or "not served",
            view.context_length,
            _size(view.size_bytes),
            view.runs,
            _size(view.memory_bytes),
            view.licence,
            view.origin,
        )
        for view in views
    ]
    columns = ("MODEL", "STATUS", "CONTEXT", "SIZE", "RUNS", "MEMORY", "LICENCE", "FROM")
    print_table(columns, rows, empty="There are no models.")
    for view in views:
        if view.status_reason is not None:
            print_line(f"{view.id} failed: {view.status_reason}")


@app.command("show")
def show(
    name: NameArgument, home: HomeOption = None, database_url: DatabaseOption = None, as_json: JsonOption = False
) -> None:
    """Show one model: its files, its licence, whether it runs here, and with how much memory."""
    location = location_of(home, database_url)
    folder = _folder_of(location)
    served = _read_served(location)
    try:
        _show(get_local(folder, name), folder, served, as_json=as_json)
    except ModelNotHere:
        known = [view for view in views_of(served, (), {}) if view.id == name]
        if not known:
            raise
        _print_view(known[0], as_json=as_json)


@app.command("remove")
def remove_model(
    name: NameArgument, home: HomeOption = None, database_url: DatabaseOption = None, as_json: JsonOption = False
) -> None:
    """Delete a model's files, and what was converted of them; a file of your own stays."""
    location = location_of(home, database_url)
    folder = _folder_of(location)
    model = get_local(folder, name)
    if {model.name, str(model.source)} & set(_list_running(location)):
        raise ModelNotRemovable(f"a worker serves {model.name} just now; stop it first")
    freed_bytes = remove(folder, model)
    if as_json:
        print_json({"id": model.name, "freed_bytes": freed_bytes})
    else:
        print_line(f"Removed {model.name}; {_size(freed_bytes)} are free again.")


def _folder_of(location: Location) -> ModelFolder:
    return ModelFolder(path=model_folder_of(CliSettings.read(), location.home))


def _read_served(location: Location) -> ServedModels:
    try:
        with opened(location) as database, database.connect() as connection:
            rows = manifests.list_models(connection, CliSettings.read().lease_s)
            return ServedModels(
                rows=rows,
                manifest_by_model={row.model: manifests.get_manifest(connection, row.model) for row in rows},
                failures=workers.list_failures(connection),
            )
    except NothingHere:
        return ServedModels()


def _list_running(location: Location) -> Iterable[str]:
    """Names and sources of the models that workers of this machine serve."""
    state = find_running(location)
    for process in state.processes if state is not None else ():
        yield from (part for part in (process.model, process.source) if part is not None)
    try:
        with opened(location) as database, database.connect() as connection:
            alive = workers.list_alive(connection, CliSettings.read().lease_s)
    except NothingHere:
        return
    yield from (worker.model for worker in alive if worker.host == socket.gethostname())


def _describe(models: Iterable[LocalModel], folder: ModelFolder) -> dict[str, ModelDescription | str]:
    """The description of each model by its name, or why there is none."""
    descriptions = Descriptions(folder.path)
    found: dict[str, ModelDescription | str] = {}
    for model in models:
        if not model.source.exists():
            found[model.name] = "its file is gone"
            continue
        if descriptions.find(model.source) is None:
            print_progress(f"Examining {model.name} ...")
        try:
            found[model.name] = descriptions.get(model.source)
        except DescriptionMissing as error:
            found[model.name] = error.message
    return found


def _show(model: LocalModel, folder: ModelFolder, served: ServedModels, *, as_json: bool) -> None:
    [view] = [view for view in views_of(served, [model], _describe([model], folder)) if view.id == model.name]
    _print_view(view, as_json=as_json)


def _print_view(view: ModelView, *, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    fields = {
        "model": view.id,
        "status": view.status or "not served",
        "failed because": view.status_reason,
        "from": view.origin,
        "files": view.source,
        "size": _size(view.size_bytes),
        "converted": _size(view.converted_bytes),
        "licence": view.licence,
        "architecture": view.architecture,
        "parameters": None if view.num_parameters is None else f"{view.num_parameters / 1e6:,.1f} million",
        "context": None if view.context_length is None else f"{view.context_length} tokens",
        "runs": view.runs,
        "because": view.runs_reason,
        "memory": _size(view.memory_bytes),
    }
    print_fields({name: value for name, value in fields.items() if value is not None})


def _size(size_bytes: int | None) -> str | None:
    """Bytes for people; None for nothing."""
    if not size_bytes:
        return None
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"
