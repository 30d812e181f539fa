"""Assembles a generation worker: Celery's app with our pool, the model's queues and the process that runs the jobs."""

from collections.abc import Callable
from functools import partial

from celery import Celery
from kombu import Exchange, Queue

from storage.broker import celery_queue
from storage.broker.ticket_message import GENERATE
from storage.contract import PriorityQueue
from storage.settings import StorageSettings
from workers.broker import celery_pool
from workers.broker.back_queue import BACK_QUEUE, BackQueueConsumer
from workers.generation.engine_thread import Loaded
from workers.generation.process import GenerationProcess
from workers.settings import WorkerSettings


def create_worker_app(settings: WorkerSettings, storage: StorageSettings, load: Callable[[], Loaded]) -> Celery:
    """The app for `celery worker`; it starts nothing by itself.

    load: makes the engine, on the engine's thread
    """
    app = celery_queue.create_celery(storage.redis_url)
    front = celery_queue.queue_of(settings.name)
    app.conf.update(
        {
            "task_default_queue": front,
            # On one channel, which kombu serves in turns: neither queue can block the other.
            "task_queues": [_declared(front), _declared(celery_queue.queue_of(settings.name, PriorityQueue.PRIORITY))],
            "worker_pool": "workers.broker.celery_pool:EnginePool",
            "worker_consumer": "workers.broker.consumer:PromptConsumer",
            "worker_concurrency": settings.concurrency,
            BACK_QUEUE: celery_queue.queue_of(settings.name, PriorityQueue.BACK),
            celery_pool.PROCESS: partial(GenerationProcess, settings, storage, load),
            celery_pool.DRAIN_GRACE_S: settings.drain_grace_s,
        }
    )
    app.steps["consumer"].add(BackQueueConsumer)
    app.task(name=GENERATE)(_generate)
    return app


def _declared(name: str) -> Queue:
    """A queue as Celery declares one that is not configured."""
    return Queue(name, Exchange(name), routing_key=name)


def _generate(job_id: str) -> None:
    """Stands for the task's name; tickets never reach it, see `workers.broker.celery_pool`."""
    raise RuntimeError(f"job {job_id}: this task runs on the engine pool only")
