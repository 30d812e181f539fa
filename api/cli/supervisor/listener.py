"""The API's listening socket, and whether callers need an API key."""

import errno
import socket

from api.cli.settings import CliSettings
from api.settings import is_loopback_name
from storage.accounts import keys
from storage.database.connections import Database
from storage.errors import PlatformError

# The largest unsent data in the kernel for a slow reader; the rest waits in the API, where it is counted.
_MAX_UNSENT_BYTES = 128 * 1024


class AddressUnusable(PlatformError):
    """Listening on the address is impossible, or not allowed without an API key."""

    code = "address_unusable"


def listen(host: str, port: int) -> socket.socket:
    """A bound, listening socket; AddressUnusable says why there is none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=host == "::")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressUnusable(f"port {port} on {host} is in use; choose another with --port") from error
        raise AddressUnusable(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        # Accepted connections inherit the option.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MAX_UNSENT_BYTES)
    return listener


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
