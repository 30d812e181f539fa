"""The supervisor's state file for other commands: `home/run/state.json`."""

import os
from pathlib import Path

import msgspec

from api.cli.home import Home


class ProcessState(msgspec.Struct, frozen=True, kw_only=True):
    """State of one supervised process.

    since:    Unix time of the last change of state
    restarts: how often it was started again
    model:    the id that a generation worker serves
    source:   where that model's files are
    """

    role: str
    name: str
    pid: int | None
    state: str
    since: float
    restarts: int = 0
    model: str | None = None
    source: str | None = None
    worker_id: str | None = None
    log: str | None = None


class PlatformState(msgspec.Struct, frozen=True, kw_only=True):
    """A running `tokenpost up`; the file is for this user alone, since the URLs may hold passwords.

    url: address of the API, with `/v1`
    """

    pid: int
    version: str
    url: str
    started_at: float
    database_url: str
    redis_url: str
    processes: list[ProcessState]


def write_state(home: Home, state: PlatformState) -> None:
    """Replace the state file atomically."""
    new = home.state_file.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(state)))
    new.replace(home.state_file)


def read_state(home: Home) -> PlatformState | None:
    """The state that the home's last supervisor wrote; None when there is none."""
    return _decode(home.state_file)


def _decode(path: Path) -> PlatformState | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=PlatformState)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
