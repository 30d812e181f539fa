"""The home folder: where one machine keeps its database, Redis data, logs and secrets."""

import fcntl
import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from storage.errors import PlatformError

# sockaddr_un.sun_path holds 108 bytes on Linux and 104 on macOS, the closing zero included.
_MAX_SOCKET_PATH_BYTES = 103
# Children of a supervisor that was just killed still hold the lock for a moment, until the kernel has ended them.
_LOCK_TIMEOUT_S = 2.0


class HomeInUse(PlatformError):
    """Another supervisor runs on this home folder."""

    code = "home_in_use"


class HomeUnusable(PlatformError):
    """The home folder cannot be made or written."""

    code = "home_unusable"


def _write_secret(path: Path, text: str) -> None:
    """Create a file that only this user can read; the file of a process that was faster is kept.

    The name appears with the whole text on the disk, so that a crash never leaves an empty secret behind.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            # Not a rename, which would replace the secret of another process.
            os.link(name, path)
    finally:
        Path(name).unlink()


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Paths of everything in one home folder, which is an absolute path."""

    path: Path

    @property
    def logs(self) -> Path:
        """One log file for each process that the supervisor starts."""
        return self.path / "logs"

    @property
    def run(self) -> Path:
        """Files that exist only while the supervisor runs: lock, state, socket."""
        return self.path / "run"

    @property
    def redis_data(self) -> Path:
        """The embedded Redis' append-only file."""
        return self.path / "redis"

    @property
    def models(self) -> Path:
        """Pulled and converted models, where no other folder is set."""
        return self.path / "models"

    @property
    def state_file(self) -> Path:
        """The supervisor's process list, which `tokenpost ps` reads."""
        return self.run / "state.json"

    @property
    def pepper_file(self) -> Path:
        """The secret that API keys are hashed with; without it no key is valid."""
        return self.path / "pepper"

    @property
    def database_url(self) -> str:
        """The SQLite database that is used when no other is named."""
        return f"sqlite:///{self.path / 'tokenpost.db'}"

    @property
    def redis_socket(self) -> Path:
        """The embedded Redis' socket; in the temporary folder when the home's path is too long for a socket."""
        socket = self.run / "redis.sock"
        if len(os.fsencode(socket)) <= _MAX_SOCKET_PATH_BYTES:
            return socket
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"tokenpost-{os.getuid()}-{digest}" / "redis.sock"

    @property
    def fork_socket(self) -> Path:
        """The socket of the generation workers' fork server."""
        return self.redis_socket.with_name("fork.sock")

    @property
    def redis_url(self) -> str:
        """Address of the embedded Redis."""
        return f"unix://{self.redis_socket}"

    def progress_file(self, name: str) -> Path:
        """How far the worker of that name has loaded its model."""
        return self.run / f"{self.log_file(name).stem}.progress"

    def log_file(self, name: str) -> Path:
        """The log of the process of that name; model ids in names may hold slashes and colons."""
        return self.logs / f"{name.replace('/', '--').replace(':', '-')}.log"

    def create(self) -> None:
        """Make every folder, readable by this user alone; HomeUnusable says why it failed."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.logs, self.run, self.redis_data, self.redis_socket.parent):
                folder.mkdir(mode=0o700, exist_ok=True)
            # An existing folder may have a wider mode, or belong to another user; then chmod fails.
            for folder in (self.run, self.redis_data, self.redis_socket.parent):
                folder.chmod(0o700)
        except OSError as error:
            raise HomeUnusable(f"cannot use {self.path} as home: {error.strerror}: {error.filename}") from error

    def ensure_pepper(self) -> Path:
        """The pepper's file, created with 256 random bits when there is none."""
        self.create()
        if not self.pepper_file.exists():
            _write_secret(self.pepper_file, secrets.token_hex(32))
        return self.pepper_file

    @contextmanager
    def lock(self) -> Iterator[int]:
        """Hold the exclusive lock of this home; yields its descriptor. HomeInUse when another supervisor holds it.

        A child that inherits the descriptor keeps the lock, so that a second Redis never opens the same file.
        """
        descriptor = os.open(self.run / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not _try_lock(descriptor, _LOCK_TIMEOUT_S):
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                raise HomeInUse(
                    f"Tokenpost already runs on {self.path} (process {holder}); stop it or use another --home"
                )
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)


def is_locked(home: Home) -> bool:
    """Whether a supervisor runs on this home."""
    try:
        descriptor = os.open(home.run / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor, 0.0)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        else:
            return True
