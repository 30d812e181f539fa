"""`tokenpost keys`: make, list and revoke API keys."""

from typing import Annotated

import typer

from api.cli.console import age, fail, parse_duration, print_fields, print_json, print_line, print_table, utc_now
from api.cli.open_database import location_of, opened, opened_or_made
from api.cli.options import DatabaseOption, HomeOption, JsonOption
from api.cli.settings import CliSettings, read_pepper
from storage.accounts import keys
from storage.accounts.tables import Key

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")

_SHOWN = ("id", "owner", "hint", "created_at", "expires_at", "revoked_at", "last_used_at")


@app.command("create")
def create(
    owner: Annotated[str, typer.Option(metavar="NAME", help="Whose jobs the key reaches.", show_default=False)],
    expires: Annotated[
        str | None, typer.Option(metavar="SPAN", help="Life of the key: 12h, 30d, 2w.  [default: without end]")
    ] = None,
    home: HomeOption = None,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and show it, this once."""
    if not owner.strip():
        fail("an owner needs a name", code=2)
    location, now = location_of(home, database_url), utc_now()
    expires_at = now + parse_duration(expires) if expires else None
    pepper = read_pepper(CliSettings.read(), location.home)
    with opened_or_made(location) as database, database.begin() as connection:
        new = keys.create(connection, owner.strip(), pepper=pepper, now=now, expires_at=expires_at)
    if as_json:
        print_json({"id": new.key_id, "owner": owner.strip(), "key": new.plaintext, "expires_at": expires_at})
        return
    print_line(new.plaintext)
    until = f"until {expires_at:%Y-%m-%d %H:%M} UTC" if expires_at else "without end"
    print_fields({"id": new.key_id, "owner": owner.strip(), "valid": until})
    print_line("Keep the key now; it is not shown again. From now on every request needs one.")


@app.command("list")
def list_keys(home: HomeOption = None, database_url: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """List all keys, without the keys themselves."""
    with opened(location_of(home, database_url)) as database, database.connect() as connection:
        found = keys.list_keys(connection)
    if as_json:
        print_json([{name: getattr(key, name) for name in _SHOWN} for key in found])
        return
    rows = [(key.id, key.owner, key.hint, _state(key), age(key.created_at, utc_now())) for key in found]
    print_table(("ID", "OWNER", "KEY", "STATE", "AGE"), rows, empty="There are no keys.")


@app.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `list` shows it.", show_default=False)],
    home: HomeOption = None,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key invalid from now on."""
    now = utc_now()
    with opened(location_of(home, database_url)) as database, database.begin() as connection:
        if not keys.revoke(connection, key_id, now):
            fail(f"there is no valid key {key_id}")
        is_last = not any(keys.is_valid(key, now) for key in keys.list_keys(connection))
    if as_json:
        print_json({"id": key_id, "revoked": True})
    else:
        print_line("Revoked." + (" No valid key is left: nobody gets in until one is made." if is_last else ""))


def _state(key: Key) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "valid" if keys.is_valid(key, utc_now()) else "expired"
