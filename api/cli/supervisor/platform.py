"""One running platform: starts its processes in order, watches them, and stops them in order."""

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Collection
from importlib.metadata import version
from pathlib import Path

from api.cli.console import utc_now
from api.cli.state import PlatformState, process_state, write_state
from api.cli.supervisor import redis_server
from api.cli.supervisor.child import Child, ChildState, Ended, Role
from api.cli.supervisor.processes import Serving, api_spec, redis_spec, worker_specs
from api.cli.supervisor.recovery_notice import does_api_answer, is_back
from api.cli.supervisor.redis_server import RedisProgram
from api.cli.supervisor.screen import Screen
from api.cli.supervisor.supervisor import Supervisor
from storage.contract import WorkerStatus
from storage.database.connections import Database
from storage.errors import PlatformError, StorageUnavailable
from storage.fleet import lock_holders, workers
from storage.fleet.tables import Worker

_LOOK_EVERY_S = 0.2
# A process that a signal ends while the platform starts may have had bad luck; not so often.
_MAX_EARLY_DEATHS = 3
_LAST_WORDS_BYTES = 4096
# How structlog writes the field `reason`, for people or as JSON.
_REASON = re.compile(r"""reason=(?P<quote>['"])(?P<words>.*)(?P=quote)$|"reason": ?"(?P<json>[^"]*)\"""")


class StartFailed(PlatformError):
    """A part of the platform did not come up."""

    code = "start_failed"


class Platform:
    """The processes of one `tokenpost up`; lives on one event loop in the main thread."""

    def __init__(self, serving: Serving, screen: Screen, *, listener: socket.socket, lock: int) -> None:
        self._serving = serving
        self._screen = screen
        self._listener = listener
        self._lock = lock
        self._database = Database(serving.location.database_url)
        self._supervisor = Supervisor(on_ended=self._on_ended, on_change=self._write_state)
        self._stop_asked = asyncio.Event()
        self._start_failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_started = False
        self._early_deaths = 0
        self._started_at = time.time()
        self._errands: set[asyncio.Task[None]] = set()
        self._watch_by_name: dict[str, asyncio.Task[None]] = {}

    async def run(self, program: RedisProgram | None, on_ready: Callable[[], None]) -> None:
        """Bring everything up, call `on_ready`, and return when it was stopped by a signal and is gone.

        program: the Redis to run; None when another one is used
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Under nohup a hang-up is ignored, and shall be.
            if signal.getsignal(number) is not signal.SIG_IGN or number is not signal.SIGHUP:
                loop.add_signal_handler(number, self._on_signal)
        try:
            starting = asyncio.create_task(self._start(program))
            if await self._raced(starting, self._start_failure):
                self._is_started = True
                on_ready()
                await self._raced(asyncio.create_task(asyncio.Event().wait()))
        finally:
            await self._stop()

    async def _raced(self, *goals: asyncio.Future[None] | asyncio.Task[object]) -> bool:
        """Whether a goal was reached, raising its error, before somebody asked to stop."""
        stop = asyncio.create_task(self._stop_asked.wait())
        broken = asyncio.create_task(self._supervisor.broken())
        done, pending = await asyncio.wait({*goals, stop, broken}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            if isinstance(task, asyncio.Task):
                task.cancel()
        for task in done - {stop}:
            task.result()
        return stop not in done

    async def _start(self, program: RedisProgram | None) -> None:
        location = self._serving.location
        self._screen.working("Starting Redis" if program else "Looking for Redis")
        if program is not None:
            self._supervisor.start(redis_spec(program, self._serving, lock=self._lock))
        timeout_s = self._serving.settings.start_timeout_s if program else 0.0
        title = await redis_server.wait_until_ready(location.redis_url, timeout_s)
        self._screen.done("Redis", f"{title}, {'embedded' if program else 'external'}")
        self._screen.done("Database", _database_title(location.database_url))
        self._supervisor.start(api_spec(self._serving, self._listener.fileno()))
        loading = [self._supervisor.start(spec) for spec in worker_specs(self._serving)]
        await self._wait_for_models([child for child in loading if child.spec.role is Role.GENERATION_WORKER])
        await self._wait_for_api()

    async def _wait_for_models(self, children: list[Child]) -> None:
        """Return when each model has a worker that is ready, telling of each."""
        began = time.monotonic()
        missing = [model.name for model in self._serving.models]
        while missing:
            rows = {row.id: row for row in await asyncio.to_thread(self._list_workers)}
            elapsed_s = time.monotonic() - began
            for child in children:
                row = rows.get(child.worker_id or "")
                if child.spec.model in missing and row is not None and row.status is WorkerStatus.READY:
                    missing.remove(child.spec.model)
                    self._screen.done(child.spec.model, f"ready on {row.device}, {row.dtype} ({elapsed_s:.1f} s)")
            if missing:
                self._screen.working(f"Loading {', '.join(missing)}", elapsed_s=elapsed_s)
                await asyncio.sleep(_LOOK_EVERY_S)

    async def _wait_for_api(self) -> None:
        """Return when the API answers; StartFailed after the time for it."""
        self._screen.working("Starting the API")
        deadline = time.monotonic() + self._serving.settings.start_timeout_s
        while time.monotonic() < deadline:
            if await does_api_answer(self._serving):
                return
            await asyncio.sleep(_LOOK_EVERY_S)
        log = self._serving.location.home.log_file("api")
        raise StartFailed(f"the API does not answer; its log is {log}")

    async def _stop(self) -> None:
        # Whoever connects from now on is refused rather than left waiting.
        self._listener.close()
        for watch in self._watch_by_name.values():
            watch.cancel()
        await self._supervisor.stop(before=self._tell_stop)
        if self._errands:
            await asyncio.wait(self._errands)
        self._screen.quiet()
        self._database.dispose()
        self._serving.location.home.state_file.unlink(missing_ok=True)

    def _tell_stop(self, role: Role) -> None:
        if not self._is_started:
            # A start that failed is about to say why.
            if self._stop_asked.is_set():
                self._screen.working("Stopping")
            return
        patience = f", up to {self._serving.settings.drain_grace_s:.0f} s (Ctrl-C again stops at once)"
        words = {
            Role.API: f"Stopping: open streams may end{patience}",
            Role.GENERATION_WORKER: f"Stopping: running jobs may end{patience}",
            Role.REDIS: "Stopping Redis",
        }
        self._screen.working(words[role])

    def _on_signal(self) -> None:
        if self._stop_asked.is_set():
            self._supervisor.kill()
        self._stop_asked.set()

    def _on_ended(self, ended: Ended) -> None:
        if ended.worker_id is not None:
            self._mark_dead_soon(ended.worker_id)
        if self._is_started:
            retry = f"starting again in {ended.retry_s:g} s"
            self._screen.note(f"{ended.spec.name} ended ({ended.reason}); {retry}; log: {ended.spec.log}", utc_now())
            self._watch(ended.spec.name)
            return
        self._early_deaths += 1
        # A process that ends by itself has said why; it would say it again.
        if (ended.code >= 0 or self._early_deaths >= _MAX_EARLY_DEATHS) and not self._start_failure.done():
            self._start_failure.set_exception(StartFailed(_obituary(ended)))

    def _watch(self, name: str) -> None:
        watch = self._watch_by_name.get(name)
        if watch is None or watch.done():
            self._watch_by_name[name] = asyncio.create_task(self._tell_return(name))

    async def _tell_return(self, name: str) -> None:
        """Say when the process is back, be it after several starts."""
        [child] = [child for child in self._supervisor.children if child.spec.name == name]
        began = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if await is_back(child, self._serving, self._database):
                self._screen.note(f"{name} is back after {time.monotonic() - began:.1f} s", utc_now())
                return

    def _mark_dead_soon(self, worker_id: str) -> None:
        task = asyncio.create_task(asyncio.to_thread(self._mark_dead, worker_id))
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def _mark_dead(self, worker_id: str) -> None:
        try:
            bury(self._database, [worker_id])
        except StorageUnavailable as error:
            # The sweeper finds the dead worker by its lease, only later.
            self._screen.note(f"could not mark a worker dead: {error.message}", utc_now())

    def _list_workers(self) -> list[Worker]:
        with self._database.connect() as connection:
            return workers.list_workers(connection)

    def _write_state(self) -> None:
        children = [child for child in self._supervisor.children if child.state is not ChildState.STOPPED]
        state = PlatformState(
            pid=os.getpid(),
            version=version("tokenpost"),
            url=self._serving.url,
            started_at=self._started_at,
            database_url=self._serving.location.database_url,
            redis_url=self._serving.location.redis_url,
            processes=[process_state(child) for child in children],
        )
        try:
            write_state(self._serving.location.home, state)
        except OSError as error:
            # A full disk blinds `tokenpost ps`; it must not end what runs.
            self._screen.note(f"could not write {error.filename}: {error.strerror}", utc_now())


def bury(database: Database, worker_ids: Collection[str]) -> None:
    """Let nobody wait for the leases of processes that are known to be gone; StorageUnavailable."""
    with database.begin() as connection:
        for worker_id in worker_ids:
            workers.mark_dead(connection, worker_id)
            lock_holders.release(connection, worker_id)


def _database_title(url: str) -> str:
    """The database for people: no password in it."""
    if url.startswith("sqlite:///"):
        return f"SQLite, {url.removeprefix('sqlite:///')}"
    return f"PostgreSQL, {url.rpartition('@')[2]}"


def _obituary(ended: Ended) -> str:
    words = last_words(ended.spec.log)
    # A process that ended by itself says why; of one that a signal ended the signal says more.
    reason = ": ".join(part for part in (ended.reason if ended.code < 0 or not words else "", words) if part)
    return f"{ended.spec.name} could not start: {reason}\nIts log is {ended.spec.log}"


def last_words(log: Path) -> str:
    """The last line with text in a log, or the reason that it gives; empty when there is none."""
    tail = log.read_bytes()[-_LAST_WORDS_BYTES:].decode(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    if not lines:
        return ""
    told = _REASON.search(lines[-1])
    return told["words"] or told["json"] if told else lines[-1].removeprefix("tokenpost: ")
