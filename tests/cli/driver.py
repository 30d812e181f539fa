"""A supervisor of small children, run as a process of its own: `python -m tests.cli.driver FOLDER TIE CHILD...`.

A child is `ROLE=CODE`; it writes its pid into FOLDER/ROLE.pid first, then runs the Python code.
"""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from api.cli.supervisor.child import ChildSpec, Ended, Role, Tie
from api.cli.supervisor.supervisor import Supervisor

_PREAMBLE = """
import os, pathlib, signal, subprocess, sys, time
def mark(name, text=""):
    path = pathlib.Path(name)
    path.with_suffix(".new").write_text(str(text) or str(time.monotonic()))
    path.with_suffix(".new").rename(path)
mark("{name}.pid", os.getpid())
"""


async def main(folder: Path, tie: str, children: list[str]) -> None:
    """Supervise the children until SIGTERM or SIGINT; a second one cuts the grace short."""
    events = folder / "events"

    def on_ended(ended: Ended) -> None:
        with events.open("a") as file:
            file.write(f"{ended.spec.name} {ended.reason} {ended.worker_id} {ended.retry_s}\n")

    supervisor = Supervisor(on_ended=on_ended, on_change=lambda: None, tie=Tie(by_pipe=tie == "pipe"))
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            supervisor.kill()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    for child in children:
        role, _, code = child.partition("=")
        supervisor.start(_spec(folder, Role(role), code))
    await stop.wait()
    await supervisor.stop(before=lambda role: (folder / "stopping").touch())
    (folder / "stopped").write_text(str(time.monotonic()))


def _spec(folder: Path, role: Role, code: str) -> ChildSpec:
    return ChildSpec(
        name=role,
        role=role,
        command=(sys.executable, "-S", "-c", _PREAMBLE.format(name=role) + code),
        environment=dict(os.environ),
        folder=folder,
        log=folder / f"{role}.log",
        stop_grace_s=2.0,
    )


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
