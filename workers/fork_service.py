"""What the fork server imports for the workers, and how it serves.

Importing torch and Celery takes seconds of CPU time and is the same for every model. The fork server imports them once,
and transformers as well when the first model that needs it is to be served. Each forked process runs
`celery -A workers.gpu worker` like a fresh one.
"""

import importlib
import socket
from collections.abc import Mapping

# Imported for the forked workers.
import celery.apps.worker
import celery.bin.celery  # noqa: F401
from celery.__main__ import main as run_celery

import workers.broker.consumer
import workers.engine.engine
import workers.generation.worker_app  # noqa: F401
from storage.errors import PlatformError
from storage.process.garbage_collection import without_collection
from storage.settings import ENV_PREFIX
from workers import fork_server
from workers.model.load import is_recorded
from workers.settings import WorkerSettings

# What decides how a model is read.
_SETTINGS = ("model", "dtype", "native", "kernel_folder", "model_folder")


def needs_transformers(environment: Mapping[str, str]) -> bool:
    """Whether a worker with this environment will read its model with transformers.

    The worker itself reports what is wrong.
    """
    variables = {name: environment.get(ENV_PREFIX + name.upper()) for name in _SETTINGS}
    try:
        settings = WorkerSettings.read(**{name: value for name, value in variables.items() if value})
        return not settings.native or not is_recorded(
            settings.model, settings.dtype, settings.kernel_folder, settings.model_folder
        )
    except PlatformError:
        return True


def serve(listener: int) -> None:
    """Serve fork requests until a signal ends this process; in each forked process, return when its worker ends.

    listener: descriptor of a listening Unix socket
    """
    fork_server.serve(socket.socket(fileno=listener), run_celery, before_fork=_import_transformers)


def _import_transformers(environment: Mapping[str, str]) -> None:
    if needs_transformers(environment):
        with without_collection():
            importlib.import_module("workers.model.transformers_load")
