"""The native kernels, compiled once for all processes and platforms of a test run."""

import fcntl
import os
from pathlib import Path

from workers.model.native.build import Build
from workers.model.resources.memory_options import LoadLimits


def compiled_library() -> Path | None:
    """The library in the folder where a worker looks for it when no setting says otherwise; None without a compiler.

    A process that asks while another one compiles waits for it, and compiles nothing.
    """
    folder = LoadLimits().kernel_folder
    assert folder is not None
    folder = folder.expanduser()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return Build(folder).wait()
    finally:
        os.close(lock)
