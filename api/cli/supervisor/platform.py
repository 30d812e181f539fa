"""`tokenpost up`: starts the platform's processes in order, reports what happens to them, and stops them in order."""

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Collection
from functools import partial
from importlib.metadata import version
from pathlib import Path

from api.cli.console import utc_now
from api.cli.models.failures import ReplicaFailures
from api.cli.state import PlatformState, write_state
from api.cli.supervisor import redis_server
from api.cli.supervisor.child import Child, ChildState, Ended, Role, process_state
from api.cli.supervisor.early_fork_server import EarlyForkServer
from api.cli.supervisor.processes import Serving, api_spec, cpu_worker_spec, generation_worker_specs, redis_spec
from api.cli.supervisor.ready_examples import Capabilities
from api.cli.supervisor.recovery_notice import does_api_answer, is_back
from api.cli.supervisor.redis_server import RedisProgram
from api.cli.supervisor.screen import Screen
from api.cli.supervisor.supervisor import Supervisor
from storage import ids
from storage.contract import WorkerStatus
from storage.database.connections import Database
from storage.errors import PlatformError, StorageUnavailable
from storage.fleet import lock_holders, manifests, workers
from storage.fleet.tables import Worker

_POLL_INTERVAL_S = 0.1
# A start fails after so many processes were ended by signals.
_MAX_EARLY_DEATHS = 3
_LOG_TAIL_BYTES = 4096
# The field `reason` as structlog writes it, for people or as JSON.
_REASON = re.compile(r"""reason=(?P<quote>['"])(?P<text>.*)(?P=quote)$|"reason": ?"(?P<json>[^"]*)\"""")


class StartFailed(PlatformError):
    """A process of the platform could not start."""

    code = "start_failed"


class Platform:
    """The processes of one `tokenpost up`; lives on one event loop in the main thread."""

    def __init__(
        self,
        serving: Serving,
        screen: Screen,
        *,
        listener: socket.socket,
        lock: int,
        fork_server: EarlyForkServer | None,
    ) -> None:
        self._serving = serving
        self._screen = screen
        self._listener = listener
        self._lock = lock
        self._database = Database(serving.location.database_url)
        self._fork_server = fork_server
        self._supervisor = Supervisor(
            on_ended=self._on_ended,
            on_change=self._write_state,
            fork_server=None if fork_server is None else fork_server.client,
        )
        self._stop_asked = asyncio.Event()
        self._start_failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_started = False
        self._early_deaths = 0
        self._replica_failures = ReplicaFailures()
        # Models that cannot be loaded, with the reason.
        self._failed: dict[str, str] = dict(serving.failures)
        self._started_at = time.time()
        self._background_tasks: set[asyncio.Task[None]] = set()
        self._watch_by_name: dict[str, asyncio.Task[None]] = {}

    async def run(self, program: RedisProgram | None, on_ready: Callable[[dict[str, Capabilities]], None]) -> None:
        """Start all processes, call `on_ready` with what each served model can do, and return after a signal once all
        have ended.

        program: the embedded Redis; None with an external one
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup ignores SIGHUP; keep that.
            if signal.getsignal(number) is not signal.SIG_IGN or number is not signal.SIGHUP:
                loop.add_signal_handler(number, self._on_signal)
        try:
            starting = asyncio.create_task(self._start(program))
            if await self._reached(starting, self._start_failure):
                self._is_started = True
                names = [name for name in self._model_names if name not in self._failed]
                on_ready(await asyncio.to_thread(_read_capabilities, self._database, names))
                await self._reached(asyncio.create_task(asyncio.Event().wait()))
        finally:
            await self._stop()

    async def _reached(self, *goals: asyncio.Future[None] | asyncio.Task[object]) -> bool:
        """Whether a goal was reached before a stop was requested; raises the goal's error."""
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
        if self._fork_server is not None:
            self._supervisor.start(self._fork_server.spec, started_pid=self._fork_server.take_pid())
        self._screen.working("Starting Redis" if program else "Looking for Redis")
        if program is not None:
            self._supervisor.start(redis_spec(program, self._serving, lock=self._lock))
        timeout_s = self._serving.settings.start_timeout_s if program else 0.0
        title = await redis_server.wait_until_ready(location.redis_url, timeout_s)
        self._screen.done("Redis", f"{title}, {'embedded' if program else 'external'}")
        self._screen.done("Database", _database_title(location.database_url))
        self._supervisor.start(api_spec(self._serving, self._listener.fileno()))
        specs = generation_worker_specs(self._serving)
        for spec in specs:
            location.home.progress_file(spec.name).unlink(missing_ok=True)
        loading = [self._supervisor.start(spec) for spec in specs]
        await self._wait_for_api()
        # Not before: its imports would take CPU time from those for which the first request waits.
        self._supervisor.start(cpu_worker_spec(self._serving))
        await self._wait_for_models(loading)

    async def _wait_for_models(self, children: list[Child]) -> None:
        """Return when each model has a ready worker or has failed; prints a line for each."""
        began = time.monotonic()
        ready: set[str] = set()
        while missing := [name for name in self._model_names if name not in ready and name not in self._failed]:
            rows = {row.id: row for row in await asyncio.to_thread(self._list_workers)}
            elapsed_s = time.monotonic() - began
            for child in children:
                row = rows.get(child.worker_id or "")
                if child.spec.model in missing and row is not None and row.status is WorkerStatus.READY:
                    missing.remove(child.spec.model)
                    ready.add(child.spec.model)
                    self._screen.done(child.spec.model, f"ready on {row.device}, {row.dtype} ({elapsed_s:.1f} s)")
            if missing:
                detail = "; ".join(self._progress_of(child) for child in children if child.spec.model in missing)
                self._screen.working(f"Loading {', '.join(missing)}", detail=detail, elapsed_s=elapsed_s)
                await asyncio.sleep(_POLL_INTERVAL_S)

    def _progress_of(self, child: Child) -> str:
        """How far a worker has loaded its model, for people."""
        file = self._serving.location.home.progress_file(child.spec.name)
        try:
            phase, done, total = file.read_text(encoding="ascii").split()
        except (OSError, ValueError):
            # Not begun, or read while it was written.
            return f"{child.spec.name}: starting"
        ending = ", preparing" if (phase, done) == ("loading", total) else ""
        return f"{child.spec.name}: {phase}, {done} of {total} tensors{ending}"

    async def _wait_for_api(self) -> None:
        """Return when the API answers; StartFailed after the timeout."""
        self._screen.working("Starting the API")
        deadline = time.monotonic() + self._serving.settings.start_timeout_s
        while time.monotonic() < deadline:
            if await does_api_answer(self._serving):
                return
            await asyncio.sleep(_POLL_INTERVAL_S)
        log = self._serving.location.home.log_file("api")
        raise StartFailed(f"the API does not answer; its log is {log}")

    async def _stop(self) -> None:
        # From now on connections are refused instead of waiting in the backlog.
        self._listener.close()
        for watch in self._watch_by_name.values():
            watch.cancel()
        await self._supervisor.stop(before=self._report_stop)
        if self._background_tasks:
            await asyncio.wait(self._background_tasks)
        self._screen.quiet()
        self._database.dispose()
        self._serving.location.home.state_file.unlink(missing_ok=True)

    def _report_stop(self, role: Role) -> None:
        if not self._is_started:
            # The message of a failed start follows.
            if self._stop_asked.is_set():
                self._screen.working("Stopping")
            return
        grace = f", up to {self._serving.settings.drain_grace_s:.0f} s (Ctrl-C again stops at once)"
        text_by_role = {
            Role.API: f"Stopping: open streams may end{grace}",
            Role.GENERATION_WORKER: f"Stopping: running jobs may end{grace}",
            Role.REDIS: "Stopping Redis",
        }
        self._screen.working(text_by_role[role])

    def _on_signal(self) -> None:
        if self._stop_asked.is_set():
            self._supervisor.kill()
        self._stop_asked.set()

    def _on_ended(self, ended: Ended) -> None:
        if ended.worker_id is not None:
            self._run_soon(partial(self._mark_dead, ended.worker_id))
        if self._is_started:
            self._report_restart(ended, ended.reason)
            return
        self._early_deaths += 1
        # A process that exits by itself has logged the reason; it would fail again.
        if ended.code < 0 and self._early_deaths < _MAX_EARLY_DEATHS:
            return
        model = ended.spec.model
        if model in self._failed:
            return
        reason = last_log_line(ended.spec.log) or ended.reason
        replicas = [child.spec.name for child in self._supervisor.children if child.spec.model == model]
        self._replica_failures.add(ended.spec.name, reason)
        if model is not None and self._replica_failures.repeated_reason(replicas) is None:
            self._report_restart(ended, reason)
        elif model is not None and set(self._model_names) - {model, *self._failed}:
            self._give_up(model, ended, reason)
        elif not self._start_failure.done():
            self._start_failure.set_exception(StartFailed(_exit_message(ended)))

    def _report_restart(self, ended: Ended, reason: str) -> None:
        retry = f"starting again in {ended.retry_s:g} s"
        self._screen.note(f"{ended.spec.name} ended ({reason}); {retry}; log: {ended.spec.log}", utc_now())
        name = ended.spec.name
        watch = self._watch_by_name.get(name)
        if watch is None or watch.done():
            self._watch_by_name[name] = asyncio.create_task(self._report_recovery(name))

    def _give_up(self, model: str, ended: Ended, reason: str) -> None:
        """Serve the other models: this one cannot be loaded."""
        self._failed[model] = reason
        for child in self._supervisor.children:
            if child.spec.model == model:
                child.stop()
        self._screen.done(model, f"failed: {self._failed[model]}; log: {ended.spec.log}")
        self._run_soon(partial(self._store_failure, model, ended.worker_id or ids.new_id("wrk_")))

    def _store_failure(self, model: str, worker_id: str) -> None:
        new = workers.NewWorker(
            worker_id=worker_id, model=model, pid=0, host=socket.gethostname(), device="", dtype="", slots=0
        )
        with self._database.begin() as connection:
            workers.put_failure(connection, new, self._failed[model], utc_now())

    async def _report_recovery(self, name: str) -> None:
        """Print a line when the process works again, also after several restarts."""
        [child] = [child for child in self._supervisor.children if child.spec.name == name]
        began = time.monotonic()
        while True:
            await asyncio.sleep(_POLL_INTERVAL_S)
            if await is_back(child, self._serving, self._database):
                self._screen.note(f"{name} is back after {time.monotonic() - began:.1f} s", utc_now())
                return

    def _run_soon(self, call: Callable[[], None]) -> None:
        """Run something in a thread; `_stop` waits for it."""
        task = asyncio.create_task(asyncio.to_thread(call))
        self._background_tasks.add(task)
        task.add_done_callback(self._background_tasks.discard)

    def _mark_dead(self, worker_id: str) -> None:
        try:
            mark_workers_dead(self._database, [worker_id])
        except StorageUnavailable as error:
            # The sweeper finds the dead worker when its lease has expired.
            self._screen.note(f"could not mark a worker dead: {error.message}", utc_now())

    @property
    def _model_names(self) -> list[str]:
        return [model.name for model in self._serving.models]

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
            # With a full disk `tokenpost ps` shows old states; the platform must go on.
            self._screen.note(f"could not write {error.filename}: {error.strerror}", utc_now())


def _read_capabilities(database: Database, names: Collection[str]) -> dict[str, Capabilities]:
    """What each model can do, by name; nothing is known of one whose manifest cannot be read now."""
    try:
        with database.connect() as connection:
            return {name: manifests.get_manifest(connection, name).capabilities for name in names}
    except PlatformError:
        return {name: {} for name in names}


def mark_workers_dead(database: Database, worker_ids: Collection[str]) -> None:
    """Mark workers dead whose processes have ended, so that their leases need not expire; StorageUnavailable."""
    with database.begin() as connection:
        for worker_id in worker_ids:
            workers.mark_dead(connection, worker_id)
            lock_holders.release(connection, worker_id)


def _database_title(url: str) -> str:
    """The database for people, without its password."""
    if url.startswith("sqlite:///"):
        return f"SQLite, {url.removeprefix('sqlite:///')}"
    return f"PostgreSQL, {url.rpartition('@')[2]}"


def _exit_message(ended: Ended) -> str:
    line = last_log_line(ended.spec.log)
    # A process that exited by itself has logged why; after a signal, the signal says more.
    reason = ": ".join(part for part in (ended.reason if ended.code < 0 or not line else "", line) if part)
    return f"{ended.spec.name} could not start: {reason}\nIts log is {ended.spec.log}"


def last_log_line(log: Path) -> str:
    """The last non-empty line of a log, or its `reason` field; empty when there is none."""
    tail = log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace") if log.exists() else ""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    if not lines:
        return ""
    match = _REASON.search(lines[-1])
    return match["text"] or match["json"] if match else lines[-1].removeprefix("tokenpost: ")
