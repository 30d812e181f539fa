"""`tokenpost up`: the whole platform on this machine; imported by the command once the fork server was started."""

import asyncio
import dataclasses
import socket
from importlib.metadata import version

from api.cli.console import make_console
from api.cli.home import Home
from api.cli.key_notice import key_notice
from api.cli.models.failures import store_failures
from api.cli.models.fetching import fetch_all
from api.cli.models.local_models import ModelFolder
from api.cli.models.model_argument import parse_models
from api.cli.open_database import opened_or_made
from api.cli.settings import model_folder_of
from api.cli.state import read_state
from api.cli.supervisor import redis_server
from api.cli.supervisor.early_fork_server import EarlyForkServer
from api.cli.supervisor.platform import Platform, mark_workers_dead
from api.cli.supervisor.processes import Serving
from api.cli.supervisor.screen import Screen

__all__ = ["Serving", "bring_up", "parse_models"]


def bring_up(serving: Serving, *, listener: socket.socket, lock: int, fork_server: EarlyForkServer | None) -> None:
    """Run the platform until a signal stops it; PlatformError says why it cannot run.

    lock: of the home
    """
    home = serving.location.home
    program = redis_server.find_program() if serving.location.is_embedded else None
    with opened_or_made(serving.location) as database:
        mark_workers_dead(database, _stale_worker_ids(home))
        key, is_key_needed = key_notice(
            serving.settings, database, host=serving.host, is_key_required=serving.is_key_required
        )
    screen = Screen(make_console())
    screen.title(version("tokenpost"))
    try:
        serving = _with_fetched_models(serving, screen)
    except KeyboardInterrupt:
        screen.quiet()
        screen.line("Stopped.")
        return

    async def run() -> None:
        platform = Platform(serving, screen, listener=listener, lock=lock, fork_server=fork_server)
        await platform.run(program, lambda models: screen.ready(serving, models, key, is_key_needed=is_key_needed))

    try:
        asyncio.run(run())
    finally:
        screen.quiet()
    screen.line("Stopped.")


def _with_fetched_models(serving: Serving, screen: Screen) -> Serving:
    """With models whose files are on this machine; the others are noted as failed."""
    folder = ModelFolder(path=model_folder_of(serving.settings, serving.location.home))
    try:
        fetched = fetch_all(serving.models, folder.files, screen)
    finally:
        screen.quiet()
    for name, reason in fetched.failures.items():
        screen.done(name, f"failed: {reason}")
    store_failures(serving.location, fetched.failures)
    return dataclasses.replace(serving, models=fetched.models, failures=fetched.failures)


def _stale_worker_ids(home: Home) -> list[str]:
    """Ids of the workers that died with this home's last supervisor, if that was killed.

    The caller holds the lock, so that supervisor has ended; one that stops in order removes its state file.
    """
    state = read_state(home)
    return [process.worker_id for process in state.processes if process.worker_id] if state is not None else []
