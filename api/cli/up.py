"""`tokenpost up`: the whole platform on this machine."""

import asyncio
import errno
import importlib.util
import os
import socket
from importlib.metadata import version

from api.cli import redis_server
from api.cli.console import make_console
from api.cli.platform import Platform
from api.cli.processes import Serving
from api.cli.screen import Screen
from api.settings import is_loopback_name
from storage import keys
from storage.database import Database, migrate
from storage.errors import PlatformError


class AddressUnusable(PlatformError):
    """The address cannot be listened on, or must not be without a key."""

    code = "address_unusable"


class TorchMissing(PlatformError):
    """The generation worker's libraries are not installed."""

    code = "torch_missing"


def bring_up(serving: Serving) -> None:
    """Run the platform until a signal stops it; PlatformError says what stands in the way."""
    # Rows, logs and sockets hold what people wrote: they are for this user alone.
    os.umask(0o077)
    if importlib.util.find_spec("torch") is None:
        raise TorchMissing("the generation worker needs PyTorch: pip install 'tokenpost[torch]'")
    home = serving.place.home
    home.create()
    program = redis_server.find_program() if serving.place.is_embedded else None
    with home.lock() as lock, listen(serving.host, serving.port) as listener:
        migrate(serving.place.database_url)
        key, is_key_needed = _access(serving)
        screen = Screen(make_console())
        screen.title(version("tokenpost"))

        async def run() -> None:
            platform = Platform(serving, screen, listener=listener, lock=lock)
            await platform.run(program, lambda: screen.ready(serving, key, is_key_needed=is_key_needed))

        try:
            asyncio.run(run())
        finally:
            screen.quiet()
        screen.line("Stopped.")


def listen(host: str, port: int) -> socket.socket:
    """A bound, listening socket; AddressUnusable says why there is none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=host == "::")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressUnusable(f"port {port} on {host} is in use; choose another with --port") from error
        raise AddressUnusable(f"cannot listen on {host} port {port}: {error.strerror or error}") from error


def _access(serving: Serving) -> tuple[str, bool]:
    """A sentence about the key, and whether one is needed; AddressUnusable when there is none and one is needed."""
    database = Database(serving.place.database_url)
    try:
        with database.connect() as connection:
            has_keys = keys.any_exists(connection)
    finally:
        database.dispose()
    if serving.settings.api_key is not None:
        return "the one in TOKENPOST_API_KEY", True
    if has_keys:
        return "one that `tokenpost keys create` showed", True
    if not is_loopback_name(serving.host):
        raise AddressUnusable(
            f"{serving.host} can be reached by others, so a key is needed: "
            "set TOKENPOST_API_KEY, or run: tokenpost keys create --owner NAME"
        )
    if serving.is_key_required:
        return "needed, and there is none yet: tokenpost keys create --owner NAME", True
    return "no key needed on this machine", False
