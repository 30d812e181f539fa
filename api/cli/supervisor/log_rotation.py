"""Log rotation of running children: bounds the size and the number of their log files."""

import shutil
from pathlib import Path

MAX_LOG_BYTES = 10_000_000
NUM_OLD_LOGS = 3


def rotate(log: Path, *, max_bytes: int = MAX_LOG_BYTES) -> None:
    """Copy a large log to `NAME.1.log` and truncate it; older ones move on to `.2.log` and `.3.log`, the last one goes.

    The child keeps its open file, which it appends to, so it goes on at the start of the emptied file. Lines that are
    written between the copy and the truncation are lost.
    """
    if not log.exists() or log.stat().st_size <= max_bytes:
        return
    for number in range(NUM_OLD_LOGS - 1, 0, -1):
        if (old := old_log(log, number)).exists():
            old.replace(old_log(log, number + 1))
    try:
        shutil.copyfile(log, old_log(log, 1))
    except OSError:
        # A full disk: the log is emptied without a copy.
        old_log(log, 1).unlink(missing_ok=True)
    with log.open("r+b") as file:
        file.truncate(0)


def old_log(log: Path, number: int) -> Path:
    """The path of a rotated log; 1 is the newest."""
    return log.with_name(f"{log.name.removesuffix('.log')}.{number}.log")
