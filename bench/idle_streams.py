"""What an idle stream costs an API process in memory: `python -m bench.idle_streams [--streams 1000]`.

One process as `tokenpost serve` runs it, a real Redis, no worker: each stream is of a background job that stays queued,
over a connection of its own. The figure is the growth of the process's resident memory, after so many streams before
that what is made once is made.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from api.cli.home import Home
from bench.accept import MODEL, serving
from bench.sse import Listener, open_streams

_WARM_UP = 300
_TARGET_KB = 60


def resuming_request(job_id: str) -> bytes:
    """A GET that streams a stored job."""
    return b"GET /v1/responses/%b?stream=true HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" % job_id.encode()


def idle_request() -> bytes:
    """A request whose connection is kept alive and does nothing."""
    return b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
