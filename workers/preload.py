"""Entry point of the generation workers' fork server: `python -m workers.preload LISTENER`, run by `tokenpost up`.

Importing torch, transformers and Celery takes seconds of CPU time and is the same for every model. This process imports
them once. Each forked process runs `celery -A workers.gpu worker` like a fresh one.
"""

import socket
import sys

# Imported for the forked workers.
import celery.apps.worker
import celery.bin.celery  # noqa: F401
from celery.__main__ import main as run_celery

import workers.broker.consumer
import workers.engine.engine
import workers.generation.worker_app
import workers.model.load  # noqa: F401
from workers import fork_server

if __name__ == "__main__":
    fork_server.serve(socket.socket(fileno=int(sys.argv[1])), run_celery)
