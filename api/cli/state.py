"""The supervisor's state file for other commands: `home/run/state.json`."""

from pathlib import Path

import msgspec

from api.cli.home import Home
from storage.process.atomic_file import replace_file


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
    replace_file(home.state_file, msgspec.json.format(msgspec.json.encode(state)))


def read_state(home: Home) -> PlatformState | None:
    """The state that the home's last supervisor wrote; None when there is none."""
    return _decode(home.state_file)


def _decode(path: Path) -> PlatformState | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=PlatformState)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
