"""Supervisor of the platform's processes: starts them, and stops them in order."""

import asyncio
from collections.abc import Callable

from api.cli.supervisor.child import Child, ChildSpec, Ended, Role, Tie
from api.cli.supervisor.fork_client import ForkServer
from api.cli.supervisor.log_rotation import rotate

# The API first, while the workers can still finish its streams; Redis last, since all others use it.
_STOP_ORDER = ((Role.API,), (Role.GENERATION_WORKER, Role.CPU_WORKER, Role.FORK_SERVER), (Role.REDIS,))


_ROTATE_EVERY_S = 5.0


class Supervisor:
    """The children of one `tokenpost up`. Everything runs on one event loop in the main thread: the parent-death signal
    follows the thread that forked the child.
    """

    def __init__(
        self,
        *,
        on_ended: Callable[[Ended], None],
        on_change: Callable[[], None],
        tie: Tie | None = None,
        fork_server: ForkServer | None = None,
    ) -> None:
        self._on_ended = on_ended
        self._on_change = on_change
        self._tie = tie or Tie()
        self._fork_server = fork_server
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rotating = asyncio.create_task(self._rotate_logs(), name="log rotation")
        self._rotating.add_done_callback(self._check)
        self.children: list[Child] = []

    def start(self, spec: ChildSpec, *, started_pid: int | None = None) -> Child:
        """Start one more child and keep it running.

        started_pid: of its first process, where that runs already
        """
        child = Child(
            spec=spec,
            tie=self._tie,
            on_ended=self._on_ended,
            on_change=self._on_change,
            fork_server=self._fork_server if spec.role is Role.GENERATION_WORKER else None,
            started_pid=started_pid,
        )
        self.children.append(child)
        task = self._tasks[spec.name] = asyncio.create_task(child.keep(), name=spec.name)
        task.add_done_callback(self._check)
        return child

    async def stop(self, before: Callable[[Role], None] = lambda role: None) -> None:
        """Stop all children in order; returns when none is left. `before` gets the first role of each group."""
        for roles in _STOP_ORDER:
            children = [child for child in self.children if child.spec.role in roles]
            if not children:
                continue
            before(roles[0])
            for child in children:
                child.stop()
            await asyncio.wait([self._tasks[child.spec.name] for child in children])
        self._rotating.cancel()

    def kill(self) -> None:
        """Kill all children; a running `stop` then returns soon."""
        for child in self.children:
            child.kill()

    async def broken(self) -> None:
        """Never return: raise the error that broke the supervision of a child, such as a full disk."""
        # Shielded: a cancelled caller must not cancel it for the others.
        await asyncio.shield(self._broken)

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(_ROTATE_EVERY_S)
            for log in {child.spec.log for child in self.children}:
                await asyncio.to_thread(rotate, log)

    def _check(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._broken.done():
            self._broken.set_exception(error)
