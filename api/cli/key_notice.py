"""Whether callers of a platform need an API key."""

from api.cli.listener import AddressUnusable
from api.cli.settings import CliSettings
from api.settings import is_loopback_name
from storage.accounts import keys
from storage.database.connections import Database


def key_notice(settings: CliSettings, database: Database, *, host: str, is_key_required: bool) -> tuple[str, bool]:
    """A line about API keys for the screen, and whether one is needed; AddressUnusable when a needed one is missing."""
    if settings.api_key is not None:
        return "the one in TOKENPOST_API_KEY", True
    with database.connect() as connection:
        has_keys = keys.any_exists(connection)
    if has_keys:
        return "one that `tokenpost keys create` showed", True
    if not is_loopback_name(host):
        raise AddressUnusable(
            f"{host} can be reached by others, so a key is needed: "
            "set TOKENPOST_API_KEY, or run: tokenpost keys create --owner NAME"
        )
    if is_key_required:
        return "needed, and there is none yet: tokenpost keys create --owner NAME", True
    return "no key needed on this machine", False
