"""The faults, each with the platform it needs. A fault does its harm, waits for what is to come back, and tells."""

import json
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx2
import psycopg

from api.cli.child import Role
from storage import jobs, workers
from storage.contract import JobStatus, Lane
from storage.queue import TicketPublisher
from tests.drill.ledger import What
from tests.drill.parts import NotOurs
from tests.drill.receiver import Manner
from tests.drill.scene import LEASE_S, PATIENCE_S, Incident, Scene
from tests.drill.work import KINDS, MODEL, body_of
from tests.waiting import wait_until

_BOTH = ("sqlite", "postgresql")
# What is promised, seconds.
_SUPERVISED_S, _UNSUPERVISED_S, _SINGLE_S, _BACK_S = 1.5, LEASE_S + 1.0, 1.5, 5.0
_LOCK_S = 10.0
# Of the parts whose engine hangs: an engine that has work and computes nothing for so long is given up.
WATCHDOG_S = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One row of the table.

    is_apart:  it needs the parts as processes of their own, without a supervisor
    proxied:   which parts reach which server through a proxy: `api-redis`, `worker-database`
    settings:  of all parts
    doors:     variables for `door/sitecustomize.py`, by part
    """

    name: str
    run: Callable[[Scene], Incident]
    replicas: int = 2
    databases: tuple[str, ...] = _BOTH
    is_apart: bool = False
    proxied: tuple[str, ...] = ()
    settings: dict[str, object] = field(default_factory=dict)
    doors: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def ground(self) -> str:
        """Faults with the same ground may follow each other on one platform."""
        return json.dumps([self.replicas, self.is_apart, self.proxied, self.settings, self.doors])


# Workers.


def kill_worker(scene: Scene) -> Incident:
    """kill -9 of the busier of two supervised workers."""
    worker, interrupted = scene.busiest_worker()
    at = time.monotonic()
    scene.stage.signal(worker.pid, signal.SIGKILL)
    scene.wait_for_fresh_worker({one.id for one in scene.stage.ready_workers()} | {worker.id})
    return Incident(at=at, back=at, target_s=_SUPERVISED_S, interrupted=interrupted)


def kill_only_worker(scene: Scene) -> Incident:
    """kill -9 of the one worker; recovery counts from the restarted process being ready."""
    worker, interrupted = scene.busiest_worker()
    at = time.monotonic()
    scene.stage.signal(worker.pid, signal.SIGKILL)
    back = scene.wait_for_fresh_worker({worker.id})
    return Incident(
        at=at, back=back, target_s=_SINGLE_S, interrupted=interrupted, note=f"ready after {back - at:.1f} s"
    )


def kill_unsupervised_worker(scene: Scene) -> Incident:
    """kill -9 of one of two workers that nobody watches: only the lease tells; it is started again afterwards."""
    worker, interrupted = scene.busiest_worker()
    part = next(part for part in scene.apart.worker_parts if part.pid == worker.pid)
    at = time.monotonic()
    part.kill()
    wait_until(lambda: all(scene.observer.went_on_at(*pair) for pair in interrupted.items()) or _late(at), PATIENCE_S)
    part.start()
    scene.wait_for_fresh_worker({one.id for one in scene.stage.ready_workers()} | {worker.id})
    return Incident(at=at, back=at, target_s=_UNSUPERVISED_S, interrupted=interrupted)


def stop_and_go_on(scene: Scene) -> Incident:
    """SIGSTOP of the busier of two workers for longer than the lease, then SIGCONT, back to jobs not its own."""
    worker, interrupted = scene.busiest_worker()
    at = time.monotonic()
    scene.stage.signal(worker.pid, signal.SIGSTOP)
    scene.pause(LEASE_S + 3.0, LEASE_S + 6.0)
    scene.stage.signal(worker.pid, signal.SIGCONT)
    return Incident(at=at, back=at, target_s=_UNSUPERVISED_S, interrupted=interrupted)


def stop_only_worker(scene: Scene) -> Incident:
    """SIGSTOP of the one worker for longer than its lease, then SIGCONT: it claims its own jobs again."""
    worker, _ = scene.busiest_worker()
    at = time.monotonic()
    scene.stage.signal(worker.pid, signal.SIGSTOP)
    scene.pause(LEASE_S + 3.0, LEASE_S + 6.0)
    scene.stage.signal(worker.pid, signal.SIGCONT)
    return Incident(at=at, back=time.monotonic(), target_s=_BACK_S)


def stop_shortly(scene: Scene) -> Incident:
    """SIGSTOP for less than the lease: nobody may take anything over."""
    worker, _ = scene.busiest_worker()
    at = time.monotonic()
    scene.stage.signal(worker.pid, signal.SIGSTOP)
    scene.pause(1.0, LEASE_S / 3)
    scene.stage.signal(worker.pid, signal.SIGCONT)
    return Incident(at=at, back=time.monotonic(), target_s=_BACK_S)


def drain_worker(scene: Scene) -> Incident:
    """SIGTERM: it finishes what it can within its grace and gives the rest back."""
    worker, _ = scene.busiest_worker()
    known = {one.id for one in scene.stage.ready_workers()}
    at = time.monotonic()
    scene.stage.signal(worker.pid, signal.SIGTERM)
    scene.wait_for_fresh_worker(known)
    return Incident(at=at, back=time.monotonic(), target_s=_SINGLE_S)


def hang_engine(scene: Scene) -> Incident:
    """The engine of one of two workers hangs in a step while its process lives and beats: the watchdog's case."""
    worker, interrupted = scene.busiest_worker()
    part = next(part for part in scene.apart.worker_parts if part.pid == worker.pid)
    file = scene.stage.folder / f"hang-{part.name}"
    at = time.monotonic()
    file.touch()
    try:
        wait_until(
            lambda: all(scene.observer.went_on_at(*pair) for pair in interrupted.items()) or _late(at), PATIENCE_S
        )
    finally:
        file.unlink()
    if part.is_running:
        note = "the process lives on"
    else:
        note = f"its process ended with {part.process.returncode if part.process else None}"
        part.start()
        scene.wait_for_fresh_worker({one.id for one in scene.stage.ready_workers()} | {worker.id})
    return Incident(at=at, back=at, target_s=WATCHDOG_S + _UNSUPERVISED_S, interrupted=interrupted, note=note)


def _late(at: float) -> bool:
    """Whether waiting for recovery is over: the judge says what came of it."""
    return time.monotonic() - at > 30.0


def poison(scene: Scene) -> Incident:
    """A job that kills every worker that runs it: it fails with `worker_lost`, and its neighbours complete."""
    name, kind = f"{scene.name}-poison", KINDS["poll"]
    scene.ledger.write(name, What.ASKED, kind="poll", template=1)
    body = body_of(kind, 1, 2000, name) | {"webhook": scene.stage.receiver.target}
    answer = httpx2.post(f"{scene.stage.root_url}/v1{kind.path}", json=body, trust_env=False, timeout=10)
    job_id = answer.raise_for_status().json()["id"]
    scene.ledger.write(name, What.ACCEPTED, id=job_id, status=answer.status_code)
    at, deadline, killed = time.monotonic(), time.monotonic() + PATIENCE_S, set[str]()
    while time.monotonic() < deadline:
        with scene.stage.database.connect() as connection:
            job = jobs.find(connection, job_id)
            row = workers.find(connection, job.worker_id) if job and job.worker_id else None
        if job is None or job.status.is_terminal:
            break
        if row is not None and row.id not in killed:
            killed.add(row.id)
            try:
                scene.stage.signal(row.pid, signal.SIGKILL)
            except NotOurs:
                pass  # it was killed already: a zombie of a row
        time.sleep(0.005)
    return Incident(
        at=at, back=time.monotonic(), target_s=None, doomed=frozenset([job_id]), note=f"{len(killed)} workers killed"
    )


def ticket_twice(scene: Scene) -> Incident:
    """Every job that is queued or runs gets more tickets, in both lanes."""
    at = time.monotonic()
    publisher = TicketPublisher(scene.stage.redis_url)
    publisher.start()
    accepted = [entry.id for entry in scene.reader.look() if entry.what is What.ACCEPTED and entry.id]
    for job_id in accepted[-60:]:
        for lane in (Lane.FRONT, Lane.BACK, Lane.FRONT):
            publisher.send(job_id, MODEL, lane)
    publisher.stop()
    return Incident(at=at, back=time.monotonic(), target_s=None, note=f"{3 * len(accepted[-60:])} tickets")


# Redis.


def kill_redis(scene: Scene) -> Incident:
    """kill -9 of the embedded Redis; it comes back with what its file has."""
    return _kill_redis(scene, keeps_file=True)


def kill_redis_and_file(scene: Scene) -> Incident:
    """The same, and it comes back empty."""
    return _kill_redis(scene, keeps_file=False)


def _kill_redis(scene: Scene, *, keeps_file: bool) -> Incident:
    at = time.monotonic()
    scene.stage.signal(scene.supervised.pid_of(Role.REDIS), signal.SIGKILL)
    if not keeps_file:
        scene.supervised.forget_redis()
    back = scene.wait_for_redis()
    return Incident(at=at, back=back, target_s=_BACK_S, away=(at, back))


def flush(scene: Scene) -> Incident:
    """FLUSHALL: tickets and logs are gone, connections stand."""
    at = time.monotonic()
    with scene.stage.redis() as connection:
        connection.flushall()
    return Incident(at=at, back=at, target_s=_BACK_S)


def fill_redis(scene: Scene) -> Incident:
    """Redis out of memory: it reads and refuses every write for some seconds."""
    at = time.monotonic()
    with scene.stage.redis() as connection:
        before = connection.config_get("maxmemory")
        connection.config_set("maxmemory", 1)
        scene.pause(4.0, 7.0)
        connection.config_set("maxmemory", next(iter(before.values())))
    back = time.monotonic()
    return Incident(at=at, back=back, target_s=_BACK_S, away=(at, back))


# API and everything.


def kill_api(scene: Scene) -> Incident:
    """kill -9 of the API while it streams."""
    at = time.monotonic()
    scene.stage.signal(scene.stage.api_pid(), signal.SIGKILL)
    wait_until(scene.stage.is_ready, PATIENCE_S, "the API")
    return Incident(at=at, back=time.monotonic(), target_s=_BACK_S)


def kill_everything(scene: Scene) -> Incident:
    """kill -9 of the supervisor, which takes all with it; then start again on the same home."""
    known = {one.id for one in scene.stage.ready_workers()}
    at = time.monotonic()
    supervisor = scene.supervised.supervisor
    supervisor.kill()
    scene.pause(0.5, 2.0)
    supervisor.start()
    scene.wait_for_fresh_worker(known)
    scene.stage.wait_ready(1, supervisor)
    back = time.monotonic()
    return Incident(at=at, back=back, target_s=_BACK_S, note=f"ready after {back - at:.1f} s")


# The database.


def lock_database(scene: Scene) -> Incident:
    """Somebody else holds the database's write lock for ten seconds."""
    if scene.stage.postgres is None:
        path = scene.stage.database_url.removeprefix("sqlite:///")
        with sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            at = time.monotonic()
            time.sleep(_LOCK_S)
            connection.execute("ROLLBACK")
        connection.close()
    else:
        with psycopg.connect(scene.stage.database_url.replace("+psycopg", "")) as holder:
            holder.execute("LOCK TABLE job, worker, holder IN ACCESS EXCLUSIVE MODE")
            at = time.monotonic()
            time.sleep(_LOCK_S)
            holder.rollback()
    back = time.monotonic()
    return Incident(at=at, back=back, target_s=_BACK_S, away=(at, back))


def restart_postgres(scene: Scene) -> Incident:
    """PostgreSQL crashes, stays away for a while and starts again."""
    assert scene.stage.postgres is not None
    at = time.monotonic()
    scene.stage.postgres.stop(scene.random.choice([signal.SIGQUIT, signal.SIGINT]))
    scene.pause(2.0, 8.0)
    scene.stage.postgres.start()
    back = time.monotonic()
    return Incident(at=at, back=back, target_s=_BACK_S, away=(at, back), note=f"away {back - at:.1f} s")


# The network.


def swallow(between: str, *, cuts: bool) -> Callable[[Scene], Incident]:
    """What the two say to each other is held back for some seconds; then it arrives, or the connections are cut."""

    def run(scene: Scene) -> Incident:
        proxy = scene.stage.proxies[between]
        at = time.monotonic()
        proxy.hold()
        scene.pause(6.0, 9.0)
        if cuts:
            proxy.cut()
        proxy.release()
        back = time.monotonic()
        is_api = between.startswith("api")
        # The last second counts as back already: held connections answer then.
        return Incident(at=at, back=back, target_s=_BACK_S, away=(at, back) if is_api else None)

    return run


def delay(between: str) -> Callable[[Scene], Incident]:
    """Everything between the two takes a fifth of a second more, for a while."""

    def run(scene: Scene) -> Incident:
        at = time.monotonic()
        scene.stage.proxies[between].delay(0.2)
        scene.pause(4.0, 6.0)
        scene.stage.proxies[between].delay(0.0)
        return Incident(at=at, back=time.monotonic(), target_s=_BACK_S)

    return run


def kill_with_wrong_clocks(scene: Scene) -> Incident:
    """Clocks are an hour off, and then a worker dies and all tickets are lost."""
    with scene.stage.redis() as connection:
        connection.flushall()
    return kill_unsupervised_worker(scene)


# Callers and receivers.


def leave(scene: Scene) -> Incident:
    """Callers of foreground streams go away; measured is the longest time in which their jobs yielded tokens after."""
    kind, slow_s, num_callers = KINDS["stream"], 0.0, 5
    at = time.monotonic()
    for number in range(num_callers):
        body = body_of(kind, 1, 3000, f"{scene.name}-leave-{number}")
        with httpx2.stream("POST", f"{scene.stage.root_url}/v1{kind.path}", json=body, trust_env=False) as answer:
            job_id = answer.headers["x-job-id"]
            pieces = answer.iter_raw()
            wait_until(lambda pieces=pieces: b"output_text.delta" in next(pieces), PATIENCE_S)  # type: ignore[misc]  # mypy cannot infer a lambda's defaults
            scene.pause(0.1, 0.5)
            left_at = time.monotonic()
        wait_until(lambda job_id=job_id: _is_settled(scene, job_id), PATIENCE_S, "a cancelled job with its usage")  # type: ignore[misc]  # as above
        slow_s = max(slow_s, scene.observer.last_at.get(job_id, left_at) - left_at)
    return Incident(at=at, back=time.monotonic(), target_s=1.0, took_s=slow_s, note=f"{num_callers} callers")


def _is_settled(scene: Scene, job_id: str) -> bool:
    with scene.stage.database.connect() as connection:
        job = jobs.find(connection, job_id)
    assert job is not None
    return job.status is JobStatus.CANCELLED and job.completion_tokens is not None


def misbehave(manner: Manner) -> Callable[[Scene], Incident]:
    """The receiver treats the first delivery of each event so, for a while."""

    def run(scene: Scene) -> Incident:
        at = time.monotonic()
        scene.stage.receiver.manner = manner
        scene.pause(4.0, 6.0)
        scene.stage.receiver.manner = Manner.GOOD
        return Incident(at=at, back=time.monotonic())

    return run


def kill_cpu_worker(scene: Scene) -> Incident:
    """kill -9 of the CPU worker: sweeper and webhooks; generation goes on without it."""
    pid = scene.supervised.pid_of(Role.CPU_WORKER)
    at = time.monotonic()
    scene.stage.signal(pid, signal.SIGKILL)
    wait_until(lambda: scene.supervised.pid_of(Role.CPU_WORKER) != pid, PATIENCE_S, "a fresh CPU worker")
    return Incident(at=at, back=at, target_s=_BACK_S)
