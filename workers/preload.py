"""The generation workers' fork server: `python -m workers.preload LISTENER DTYPE SOURCE...`, run by `tokenpost up`.

Importing torch and Celery takes seconds of CPU time and is the same for every model. This process imports them once,
and transformers as well if the start of one of the models needs it. Each forked process runs
`celery -A workers.gpu worker` like a fresh one.
"""

import importlib
import socket
import sys

# Imported for the forked workers.
import celery.apps.worker
import celery.bin.celery  # noqa: F401
from celery.__main__ import main as run_celery

import workers.broker.consumer
import workers.engine.engine
import workers.generation.worker_app  # noqa: F401
from storage.errors import PlatformError
from workers import fork_server
from workers.model.load import is_recorded
from workers.settings import WorkerSettings


def needs_transformers(source: str, dtype: str) -> bool:
    """Whether a worker of this model will read it with transformers. The worker itself reports what is wrong."""
    try:
        settings = WorkerSettings.read(model=source, dtype=dtype)
        return not settings.native or not is_recorded(
            source, settings.dtype, settings.kernel_folder, settings.model_folder
        )
    except PlatformError:
        return True


if __name__ == "__main__":
    _listener, _dtype, *_sources = sys.argv[1:]
    if any(needs_transformers(source, _dtype) for source in _sources):
        importlib.import_module("workers.model.transformers_load")
    fork_server.serve(socket.socket(fileno=int(_listener)), run_celery)
