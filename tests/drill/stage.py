"""The platform under the drill: with a supervisor as `tokenpost up` runs it, or in parts as several machines do."""

import contextlib
import shutil
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import redis

from api.cli.home import Home
from api.cli.state import read_state
from api.cli.supervisor.child import Role
from storage.broker.redis_client import connect
from storage.contract import WorkerStatus
from storage.database.connections import Database
from storage.database.migration import migrate
from storage.errors import StorageUnavailable
from storage.fleet import workers
from tests.drill.parts import Part, cli, environment, signal_ours
from tests.drill.proxy import Proxy
from tests.drill.receiver import Receiver
from tests.drill.work import MODEL
from tests.plain_http import http_client
from tests.ports import free_port
from tests.services import PostgresServer, RedisServer, redis_binary, running_postgres
from tests.waiting import wait_until

START_LIMIT_S = 240.0
INJECTION = Path(__file__).parent / "injection"
# A drained worker finishes some of what it runs and gives the rest back.
SETTINGS: dict[str, object] = {
    "drain_grace_s": 2,
    "num_threads": 1,
    "max_running": 32,
    "webhook_allow": "127.0.0.1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerProcess:
    """A generation worker that is ready."""

    id: str
    pid: int


class Stage(ABC):
    """A platform that is ready to be hurt."""

    def __init__(
        self, folder: Path, database_url: str, postgres: PostgresServer | None, *, sender_shift_s: float = 0.0
    ) -> None:
        """sender_shift_s: how wrong the clock of the CPU worker is, which sends webhooks"""
        self.folder = folder
        self.home = Home(path=folder / "home")
        self.database_url = database_url
        self.postgres = postgres
        self.port = free_port()
        self.database = Database(database_url)
        self.receiver = Receiver(clock_shift_s=sender_shift_s)
        # By the names of the parts between which they stand.
        self.proxies: dict[str, Proxy] = {}

    @property
    def database_name(self) -> str:
        """For people."""
        return "sqlite" if self.postgres is None else "postgresql"

    @property
    def root_url(self) -> str:
        """The address of the API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    @abstractmethod
    def redis_url(self) -> str:
        """Redis itself, past every proxy."""

    @abstractmethod
    def start(self) -> None:
        """Return when it is ready."""

    @abstractmethod
    def stop(self) -> None:
        """Return when nothing of it is left."""

    @abstractmethod
    def api_pid(self) -> int:
        """The API's process."""

    def redis(self) -> redis.Redis:
        """A connection to Redis itself."""
        return connect(self.redis_url, socket_timeout_s=2.0)

    def ready_workers(self) -> list[WorkerProcess]:
        """The generation workers that say they are ready, the oldest first; none while the database is away."""
        with contextlib.suppress(StorageUnavailable), self.database.connect() as connection:
            rows = workers.list_workers(connection)
            return [WorkerProcess(id=row.id, pid=row.pid) for row in rows if row.status is WorkerStatus.READY]
        return []

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Signal one of the platform's processes."""
        signal_ours(pid, number)

    def is_ready(self) -> bool:
        """Whether a job would run now."""
        with contextlib.suppress(httpx2.HTTPError), http_client(self.root_url, timeout_s=5.0) as http:
            return http.get("/readyz").status_code == 200
        return False

    def wait_ready(self, num_workers: int, *parts: Part) -> None:
        """Return when jobs run and so many workers are ready; none of the parts may have ended meanwhile."""

        def is_up() -> bool:
            for part in parts:
                assert part.is_running, f"{part.name} ended: {part.log.read_text()[-2000:]}"
            # In this order: before the platform is ready there may be no tables yet.
            return self.is_ready() and len(self.ready_workers()) >= num_workers

        try:
            wait_until(is_up, START_LIMIT_S, f"a platform with {num_workers} workers")
        except AssertionError as error:
            raise AssertionError(
                f"{error}; {len(self.ready_workers())} are ready; /readyz: {self._readiness()}"
            ) from error

    def _readiness(self) -> str:
        try:
            return httpx2.get(f"{self.root_url}/readyz", trust_env=False, timeout=5).text
        except httpx2.HTTPError as error:
            return f"{type(error).__name__}: {error}"


class Supervised(Stage):
    """`tokenpost up`, with its own Redis."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        postgres: PostgresServer | None,
        *,
        replicas: int,
        settings: dict[str, object],
    ) -> None:
        super().__init__(folder, database_url, postgres)
        self._replicas = replicas
        command = cli("up", "--home", str(self.home.path), "--port", str(self.port), "--replicas", str(replicas))
        command += ["--model", MODEL, "--database-url", database_url]
        self.supervisor = Part("up", command, environment(SETTINGS | settings), folder)

    @property
    def redis_url(self) -> str:
        return self.home.redis_url

    def start(self) -> None:
        self.supervisor.start()
        self.wait_ready(self._replicas, self.supervisor)

    def stop(self) -> None:
        self.supervisor.stop()
        self.database.dispose()

    def api_pid(self) -> int:
        return self.pid_of(Role.API)

    def pid_of(self, role: Role) -> int:
        """The one process in this role, once it runs."""

        def find() -> int | None:
            state = read_state(self.home)
            return next((one.pid for one in state.processes if one.role == role), None) if state else None

        return wait_until(find, START_LIMIT_S, f"a process in the role {role}") or 0

    def forget_redis(self) -> None:
        """Remove the embedded Redis' file."""
        shutil.rmtree(self.home.redis_data)
        self.home.redis_data.mkdir(mode=0o700)


class Apart(Stage):
    """API, CPU worker and generation workers as processes of their own, with addresses and clocks of their own."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        postgres: PostgresServer | None,
        *,
        replicas: int,
        settings: dict[str, object],
        own: dict[str, dict[str, object]] | None = None,
        injections: dict[str, dict[str, str]] | None = None,
    ) -> None:
        """own:   settings of single parts: `api`, `cpu`, `worker-1`, ...
        injections: variables for `injection/sitecustomize.py` in single parts
        """
        shift = (injections or {}).get("cpu", {}).get("DRILL_CLOCK_SHIFT_S", "0")
        super().__init__(folder, database_url, postgres, sender_shift_s=float(shift))
        binary = redis_binary()
        assert binary is not None, "no Redis on this machine"
        self.server = RedisServer(binary, self._socket_folder(), keeps_data=True)
        ground = ("--home", str(self.home.path))
        names = ["api", "cpu", *(f"worker-{number}" for number in range(1, replicas + 1))]
        shared = SETTINGS | settings | {"database_url": database_url, "redis_url": self.server.url}
        commands = {"api": ("serve", "--port", str(self.port)), "cpu": ("worker", "--cpu")}
        self.parts: dict[str, Part] = {}
        for name in names:
            injection = (injections or {}).get(name)
            variables = environment(
                shared | (own or {}).get(name, {}), injection="" if injection is None else str(INJECTION)
            )
            command = cli(*commands.get(name, ("worker", "--model", MODEL)), *ground)
            self.parts[name] = Part(name, command, variables | (injection or {}), folder)

    def _socket_folder(self) -> Path:
        folder = self.folder / "redis"
        folder.mkdir()
        return folder

    @property
    def redis_url(self) -> str:
        return self.server.url

    @property
    def worker_parts(self) -> list[Part]:
        """The generation workers."""
        return [part for name, part in self.parts.items() if name.startswith("worker")]

    def start(self) -> None:
        self.home.create()
        migrate(self.database_url)
        self.server.start()
        for part in self.parts.values():
            part.start()
        self.wait_ready(len(self.worker_parts), *self.parts.values())

    def stop(self) -> None:
        for part in self.parts.values():
            part.send(signal.SIGCONT)
            part.send(signal.SIGTERM)
        for part in self.parts.values():
            part.stop()
        self.server.stop()
        self.database.dispose()

    def api_pid(self) -> int:
        return self.parts["api"].pid


@contextlib.contextmanager
def fresh_database(kind: str, folder: Path) -> Iterator[tuple[str, PostgresServer | None]]:
    """The URL of an empty database, and the server of one that has a server."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'tokenpost.db'}", None
        return
    with running_postgres() as server:
        yield server.url_of(server.create()), server
