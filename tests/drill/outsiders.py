"""Faults of those outside: callers who leave, receivers of webhooks who misbehave, and the worker that tells them."""

import signal
import time
from collections.abc import Callable

import httpx2

from api.cli.supervisor.child import Role
from storage.contract import JobStatus
from storage.jobs import jobs
from tests.drill.faults import BACK_S
from tests.drill.receiver import Manner
from tests.drill.scene import PATIENCE_S, Incident, Scene
from tests.drill.work import KINDS, body_of
from tests.waiting import wait_until


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
    return Incident(at=at, back=at, target_s=BACK_S)
