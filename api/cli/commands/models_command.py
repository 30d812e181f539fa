"""`tokenpost models`: the known models and their status."""

import typer

from api.cli.console import age, print_json, print_table, utc_now
from api.cli.open_database import location_of, opened
from api.cli.options import DatabaseOption, HomeOption, JsonOption
from api.cli.settings import CliSettings
from storage.fleet import manifests

app = typer.Typer(no_args_is_help=True, help="List models.")


@app.callback()
def models_() -> None:
    """Keep `list` a command of its own, though it is the only one."""


@app.command("list")
def list_models(home: HomeOption = None, database_url: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """List every model that a worker ever served."""
    now = utc_now()
    with opened(location_of(home, database_url)) as database, database.connect() as connection:
        rows = manifests.list_models(connection, CliSettings.read().lease_s)
        manifest_by_model = {row.model: manifests.get_manifest(connection, row.model) for row in rows}
    if as_json:
        print_json(
            [
                _view(row, manifest_by_model[row.model].context_length, manifest_by_model[row.model].capabilities)
                for row in rows
            ]
        )
        return
    lines = [
        (row.model, row.status, manifest_by_model[row.model].context_length, age(row.created_at, now)) for row in rows
    ]
    print_table(("MODEL", "STATUS", "CONTEXT", "KNOWN FOR"), lines, empty="No worker has served a model yet.")


def _view(row: manifests.ModelRow, context_length: int, capabilities: dict[str, bool]) -> dict[str, object]:
    return {
        "id": row.model,
        "status": row.status,
        "context_length": context_length,
        "capabilities": capabilities,
        "created_at": row.created_at,
    }
