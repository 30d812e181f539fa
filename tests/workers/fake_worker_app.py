"""A generation worker's entry point with the fake model: `celery -A tests.workers.fake_worker_app worker`."""

import time

from pydantic import Field

from storage.process.logging_setup import LogSettings
from storage.settings import PlatformSettings, StorageSettings
from tests.fakes import FakeRunner
from tests.workers import harness
from workers.broker import celery_logging
from workers.generation.engine_thread import Loaded
from workers.generation.worker_app import create_worker_app
from workers.settings import WorkerSettings


class FakeSettings(PlatformSettings):
    """How the fake model behaves.

    step_s, load_s: how long it computes and loads
    is_broken:      it cannot be loaded
    is_unusable:    it does not recover from a broken step
    """

    fake_step_s: float = Field(default=0.0, ge=0)
    fake_load_s: float = Field(default=0.0, ge=0)
    fake_is_broken: bool = False
    fake_is_unusable: bool = False


def load() -> Loaded:
    """The fake model, or a failure."""
    settings = FakeSettings.read()
    time.sleep(settings.fake_load_s)
    if settings.fake_is_broken:
        raise RuntimeError("no such weights")
    runner = FakeRunner(settings.fake_step_s)
    runner.is_unusable = settings.fake_is_unusable
    return harness.load(runner)


celery_logging.configure(LogSettings.read())
app = create_worker_app(WorkerSettings.read(), StorageSettings.read(), load)
