"""Workers that the fork server forks are the supervisor's children in every respect."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from api.cli.home import Home
from api.cli.supervisor.child import Child, ChildSpec, ChildState, Role, Tie
from api.cli.supervisor.early_fork_server import EarlyForkServer, early_fork_server
from api.cli.supervisor.fork_client import ForkedProcess, ForkServer
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(not ForkServer.is_supported(), reason="Linux only")

_SLEEP = "import time; time.sleep(600)"
_ROOT = Path(__file__).parents[2]


class Served:
    """A fork server's process and its client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.client = ForkServer(folder / "fork.sock")
        self.start()

    def start(self) -> None:
        """Start the process, again."""
        number = self.client.listener.fileno()
        command = [sys.executable, "-m", "tests.cli.fork_driver", str(number)]
        self.process = subprocess.Popen(command, cwd=_ROOT, pass_fds=[number])

    async def fork(self, code: str) -> ForkedProcess:
        """A forked process that runs the code."""
        with self.log.open("ab") as log:
            environment = {"PATH": os.environ["PATH"], "COLOUR": "blue"}
            return await self.client.fork(["worker", code], environment, self.folder, log.fileno())

    def end(self) -> None:
        """Kill the server's process."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A running fork server."""
    opened = Served(tmp_path)
    yield opened
    opened.end()
    opened.client.close()


def test_a_forked_process_has_what_the_request_names(served: Served) -> None:
    code = "import os; print(os.environ['COLOUR'], os.environ.get('HOME'), os.getcwd(), os.getppid(), flush=True)"

    async def story() -> int:
        return await (await served.fork(code)).wait()

    assert asyncio.run(story()) == 0
    assert served.log.read_text() == f"blue None {served.folder} {os.getpid()}\n"


@pytest.mark.parametrize(("code", "status"), [("raise SystemExit(7)", 7), ("1 / 0", 1)])
def test_its_exit_status_comes_back(served: Served, code: str, status: int) -> None:
    async def story() -> int:
        return await (await served.fork(code)).wait()

    assert asyncio.run(story()) == status


def test_it_outlives_the_server_and_a_signal_is_its_status(served: Served) -> None:
    async def story() -> int:
        process = await served.fork(_SLEEP)
        served.end()
        assert psutil.Process(process.pid).ppid() == os.getpid()
        os.kill(process.pid, signal.SIGKILL)
        return await process.wait()

    assert asyncio.run(story()) == -signal.SIGKILL


def test_a_restarted_server_answers_who_waits_for_it(served: Served) -> None:
    async def story() -> int:
        served.end()
        asking = asyncio.create_task(served.fork("raise SystemExit(3)"))
        await asyncio.sleep(0)
        served.start()
        return await (await asking).wait()

    assert asyncio.run(story()) == 3


def test_orphans_of_others_are_not_adopted_afterwards(served: Served) -> None:
    # Servers of other tests are children of this process too.
    before = {child.pid for child in psutil.Process().children()}

    async def story() -> set[int]:
        process = await served.fork(
            f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {_SLEEP!r}]).pid)"
        )
        await process.wait()
        os.kill(int(served.log.read_text()), signal.SIGKILL)
        return {child.pid for child in psutil.Process().children()}

    assert served.process.pid in before
    assert asyncio.run(story()) - before == set()


def test_a_child_starts_by_itself_where_the_server_forks_none(tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    class Broken(ForkServer):
        async def fork(self, *_: object) -> ForkedProcess:
            raise ConnectionResetError

    server = Broken(tmp_path / "fork.sock")
    spec = ChildSpec(
        name="worker",
        role=Role.GENERATION_WORKER,
        command=(sys.executable, "-c", f"open({str(marker)!r}, 'w').close(); {_SLEEP}"),
        environment=dict(os.environ),
        folder=tmp_path,
        log=tmp_path / "log",
        stop_grace_s=2.0,
    )

    async def story() -> Child:
        child = Child(spec=spec, tie=Tie(), on_ended=lambda _: None, on_change=lambda: None, fork_server=server)
        keeping = asyncio.create_task(child.keep())
        await asyncio.to_thread(wait_until, marker.exists, 10.0, "the process")
        child.stop()
        await keeping
        return child

    child = asyncio.run(story())
    server.close()
    assert (child.state, child.restarts) == (ChildState.STOPPED, 0)


def test_a_child_that_waits_for_its_fork_can_be_stopped(tmp_path: Path) -> None:
    server = ForkServer(tmp_path / "fork.sock")
    spec = ChildSpec(
        name="worker",
        role=Role.GENERATION_WORKER,
        command=("unused",),
        environment={},
        folder=tmp_path,
        log=tmp_path / "log",
        stop_grace_s=2.0,
    )

    async def story() -> Child:
        child = Child(spec=spec, tie=Tie(), on_ended=lambda _: None, on_change=lambda: None, fork_server=server)
        keeping = asyncio.create_task(child.keep())
        await asyncio.sleep(0)
        child.stop()
        await asyncio.wait_for(keeping, 5.0)
        return child

    assert asyncio.run(story()).pid is None
    server.close()


def test_a_fork_server_that_was_started_early_is_the_supervisors_child_and_comes_back(home: Home) -> None:
    async def story(early: EarlyForkServer) -> list[int | None]:
        pid = early.take_pid()
        child = Child(spec=early.spec, tie=Tie(), on_ended=lambda _: None, on_change=lambda: None, started_pid=pid)
        keeping = asyncio.create_task(child.keep())
        await asyncio.to_thread(wait_until, lambda: child.pid is not None, 10.0, "the first process")
        assert child.pid == pid
        os.kill(child.pid, signal.SIGKILL)
        await asyncio.to_thread(wait_until, lambda: child.pid not in (None, pid), 10.0, "the second process")
        second = child.pid
        child.stop()
        await keeping
        return [pid, second]

    with early_fork_server(home) as early:
        assert early is not None
        assert psutil.Process(early.pid).ppid() == os.getpid()
        pids = asyncio.run(story(early))

    assert not any(psutil.pid_exists(pid) for pid in pids if pid is not None)


def test_an_early_fork_server_ends_with_a_start_that_failed(home: Home) -> None:
    pid = None
    with pytest.raises(RuntimeError), early_fork_server(home) as early:  # noqa: PT012 - the start of the story
        assert early is not None
        pid = early.pid
        raise RuntimeError("a wrong model")

    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert not home.fork_socket.exists()
