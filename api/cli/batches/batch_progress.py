"""Progress of uploads and batches on stderr: bars for people, a line for each change in a pipe."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn

from api.cli.batches.http_api import ApiUnavailable, HttpApi, JsonObject, Report
from api.cli.console import make_error_console, print_progress

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_POLL_S = 1.0
# A platform that is started again is back within this time.
_MAX_SILENCE_S = 120.0


@contextmanager
def upload_bar(name: str, size_bytes: int) -> Iterator[Report]:
    """A bar during the block, which reports sent bytes to it; nothing in a pipe."""
    with _progress(DownloadColumn()) as progress:
        task = progress.add_task(f"uploading {name}", total=size_bytes)
        yield lambda num_bytes: progress.advance(task, num_bytes)


def watch(
    api: HttpApi,
    batch_id: str,
    *,
    pause: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> JsonObject:
    """The batch when it has ended. A platform that does not answer is asked again for two minutes.

    pause, clock: of seconds
    """
    batch, answered_at, status = None, clock(), ""
    with _progress(MofNCompleteColumn(), TextColumn("{task.fields[failed]}")) as progress:
        task = progress.add_task("", total=None, failed="")
        while True:
            try:
                batch = api.get(f"/batches/{batch_id}")
                answered_at = clock()
            except ApiUnavailable:
                if clock() - answered_at >= _MAX_SILENCE_S:
                    raise
                progress.update(task, description="the platform does not answer")
                pause(_POLL_S)
                continue
            counts = batch["request_counts"]
            progress.update(
                task,
                description=batch["status"],
                total=counts["total"] or None,
                completed=counts["completed"] + counts["failed"],
                failed=f"{counts['failed']} failed" if counts["failed"] else "",
            )
            if progress.disable and batch["status"] != status:
                print_progress(f"{batch_id}: {batch['status']}, {counted(batch)}")
            status = batch["status"]
            if status in ENDED:
                return batch
            pause(_POLL_S)


def counted(batch: JsonObject) -> str:
    """The counts of a batch in words."""
    counts = batch["request_counts"]
    return f"{counts['completed']} of {counts['total']} completed, {counts['failed']} failed"


@contextmanager
def _progress(*columns: ProgressColumn) -> Iterator[Progress]:
    console = make_error_console()
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), *columns, console=console, disable=not console.is_terminal
    )
    with bar:
        yield bar
