"""The faults, each with the platform it needs. A fault does its harm, waits for what is to come back, and tells."""

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx2

from storage.broker.celery_queue import TicketPublisher
from storage.contract import PriorityQueue
from storage.fleet import workers
from storage.jobs import jobs
from tests.drill.ledger import What
from tests.drill.parts import NotOurs
from tests.drill.scene import LEASE_S, PATIENCE_S, Incident, Scene
from tests.drill.work import KINDS, MODEL, body_of
from tests.waiting import wait_until

BOTH = ("sqlite", "postgresql")
# What is promised, seconds.
_SUPERVISED_S, _UNSUPERVISED_S, _SINGLE_S = 1.5, LEASE_S + 1.0, 1.5
# Once the part that was away is back.
BACK_S = 5.0
# Of the parts whose engine hangs: an engine that has work and computes nothing for so long is given up.
WATCHDOG_S = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One row of the table.

    is_apart:  it needs the parts as processes of their own, without a supervisor
    proxied:   which parts reach which server through a proxy: `api-redis`, `worker-database`
    settings:  of all parts
    injections:     variables for `injection/sitecustomize.py`, by part
    """

    name: str
    run: Callable[[Scene], Incident]
    replicas: int = 2
    databases: tuple[str, ...] = BOTH
    is_apart: bool = False
    proxied: tuple[str, ...] = ()
    settings: dict[str, object] = field(default_factory=dict)
    injections: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def ground(self) -> str:
        """Faults with the same ground may follow each other on one platform."""
        return json.dumps([self.replicas, self.is_apart, self.proxied, self.settings, self.injections])


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
    at, interrupted = _stop_busiest(scene, LEASE_S + 3.0, LEASE_S + 6.0)
    return Incident(at=at, back=at, target_s=_UNSUPERVISED_S, interrupted=interrupted)


def stop_only_worker(scene: Scene) -> Incident:
    """SIGSTOP of the one worker for longer than its lease, then SIGCONT: it claims its own jobs again."""
    at, _ = _stop_busiest(scene, LEASE_S + 3.0, LEASE_S + 6.0)
    return Incident(at=at, back=time.monotonic(), target_s=BACK_S)


def stop_shortly(scene: Scene) -> Incident:
    """SIGSTOP for less than the lease: nobody may take anything over."""
    at, _ = _stop_busiest(scene, 1.0, LEASE_S / 3)
    return Incident(at=at, back=time.monotonic(), target_s=BACK_S)


def _stop_busiest(scene: Scene, least_s: float, most_s: float) -> tuple[float, dict[str, int]]:
    """SIGSTOP of the busiest worker, and SIGCONT after a while: since when, and which jobs stood still meanwhile."""
    worker, interrupted = scene.busiest_worker()
    at = time.monotonic()
    scene.stage.signal(worker.pid, signal.SIGSTOP)
    scene.pause(least_s, most_s)
    scene.stage.signal(worker.pid, signal.SIGCONT)
    return at, interrupted


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
    """Every job that is queued or runs gets more tickets, in both priority queues."""
    at = time.monotonic()
    publisher = TicketPublisher(scene.stage.redis_url)
    publisher.start()
    accepted = [entry.id for entry in scene.reader.read_new() if entry.what is What.ACCEPTED and entry.id]
    for job_id in accepted[-60:]:
        for priority_queue in (PriorityQueue.FRONT, PriorityQueue.BACK, PriorityQueue.FRONT):
            publisher.send(job_id, MODEL, priority_queue)
    publisher.stop()
    return Incident(at=at, back=time.monotonic(), target_s=None, note=f"{3 * len(accepted[-60:])} tickets")


def kill_with_wrong_clocks(scene: Scene) -> Incident:
    """Clocks are an hour off, and then a worker dies and all tickets are lost."""
    with scene.stage.redis() as connection:
        connection.flushall()
    return kill_unsupervised_worker(scene)
