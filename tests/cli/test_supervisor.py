"""The supervisor with real processes: nothing outlives it, what dies comes back, and it stops in order."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.waiting import wait_until

Start = Callable[..., subprocess.Popen[bytes]]
_SLEEP = "time.sleep(600)"
_TELLS_ITS_END = """
def end(*_):
    mark("{name}.end")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
mark("{name}.up")
time.sleep(600)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the driver with children; whatever is left at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*children: str, tie: str = "parent") -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.cli.driver", str(tmp_path), tie, *children]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def read_pid(folder: Path, role: str) -> int:
    """The pid that a child wrote, once it has."""
    path = folder / f"{role}.pid"
    return int(wait_until(lambda: path.exists() and path.read_text(), 10.0, f"the start of {role}"))


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and waits to be collected does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    "tie", [pytest.param("parent", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux only")), "pipe"]
)
def test_no_child_outlives_a_killed_supervisor(start: Start, tmp_path: Path, tie: str) -> None:
    supervisor = start(f"api={_SLEEP}", f"redis={_SLEEP}", tie=tie)
    pids = [read_pid(tmp_path, role) for role in ("api", "redis")]

    supervisor.kill()
    supervisor.wait()

    wait_until(lambda: not any(is_alive(pid) for pid in pids), 5.0, "the end of every child")


def test_the_watcher_of_a_pipe_goes_with_its_command(start: Start, tmp_path: Path) -> None:
    supervisor = start(f"api={_SLEEP}", tie="pipe")
    pid = read_pid(tmp_path, "api")
    group = [process for process in psutil.process_iter() if _group_of(process.pid) == pid]
    assert len(group) == 2

    supervisor.terminate()

    assert supervisor.wait(10) == 0
    wait_until(lambda: not any(process.is_running() for process in group), 5.0, "the end of the watcher")


def test_a_child_that_dies_is_started_again(start: Start, tmp_path: Path) -> None:
    start(f"api={_SLEEP}")
    first = read_pid(tmp_path, "api")

    os.kill(first, signal.SIGKILL)

    second = wait_until(lambda: (pid := read_pid(tmp_path, "api")) != first and pid, 10.0, "another process")
    assert is_alive(second)
    assert (tmp_path / "events").read_text().split()[:2] == ["api", "SIGKILL"]


def test_pauses_between_starts_grow_and_each_worker_gets_a_fresh_id(start: Start, tmp_path: Path) -> None:
    start("generation worker=mark('id', os.environ['TOKENPOST_WORKER_ID']); sys.exit(3)")
    events = tmp_path / "events"

    lines = wait_until(
        lambda: events.exists() and len(found := events.read_text().splitlines()) >= 3 and found, 15.0, "three ends"
    )

    assert [line.split()[-1] for line in lines[:3]] == ["0.5", "1.0", "2.0"]
    assert all("exit code 3" in line for line in lines)
    assert len({line.split()[-2] for line in lines}) == len(lines)
    assert (tmp_path / "id").read_text() == lines[-1].split()[-2]


def test_the_api_stops_first_and_redis_last(start: Start, tmp_path: Path) -> None:
    roles = ("redis", "cpu worker", "generation worker", "api")
    supervisor = start(*(f"{role}={_TELLS_ITS_END.format(name=role)}" for role in roles))
    for role in roles:
        wait_until((tmp_path / f"{role}.up").exists, 10.0, f"the start of {role}")

    supervisor.send_signal(signal.SIGINT)

    assert supervisor.wait(10) == 0
    ends = {role: float((tmp_path / f"{role}.end").read_text()) for role in roles}
    assert ends["api"] < min(ends["generation worker"], ends["cpu worker"])
    assert ends["redis"] > max(ends["generation worker"], ends["cpu worker"])


def test_a_child_that_will_not_end_is_killed_after_its_grace(start: Start, tmp_path: Path) -> None:
    supervisor = start(f"api=signal.signal(signal.SIGTERM, signal.SIG_IGN); mark('deaf'); {_SLEEP}")
    pid = read_pid(tmp_path, "api")
    wait_until((tmp_path / "deaf").exists, 5.0, "the child's deafness")

    supervisor.terminate()

    assert supervisor.wait(10) == 0
    assert not is_alive(pid)


def test_a_second_signal_cuts_the_grace_short_for_all(start: Start, tmp_path: Path) -> None:
    deaf = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); mark('%s'); {_SLEEP}"
    supervisor = start("api=" + deaf % "a", "cpu worker=" + deaf % "c", "redis=" + deaf % "r")
    for name in "acr":
        wait_until((tmp_path / name).exists, 10.0, "the children's deafness")

    supervisor.terminate()
    wait_until((tmp_path / "stopping").exists, 5.0, "the first signal")
    supervisor.terminate()

    # Three graces of two seconds would be six.
    assert supervisor.wait(4) == 0


def test_ctrl_c_in_the_terminal_reaches_the_supervisor_alone(start: Start, tmp_path: Path) -> None:
    start(f"api={_SLEEP}")
    pid = read_pid(tmp_path, "api")

    assert os.getpgid(pid) == pid


def test_the_kernel_weighs_all_processes_against_each_other(start: Start, tmp_path: Path) -> None:
    supervisor = start(f"api={_SLEEP}", f"generation worker={_SLEEP}")

    sessions = {os.getsid(read_pid(tmp_path, role)) for role in ("api", "generation worker")}

    assert sessions == {os.getsid(supervisor.pid)}


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def test_generation_workers_are_more_urgent_than_all_others(start: Start, tmp_path: Path) -> None:
    roles = ("redis", "api", "cpu worker", "generation worker")
    start(*(f"{role}={_SLEEP}" for role in roles))
    pids = {role: read_pid(tmp_path, role) for role in roles}

    own = psutil.Process().nice()
    expected = {role: own if role == "generation worker" else min(own + 3, 19) for role in roles}
    wait_until(lambda: {role: psutil.Process(pid).nice() for role, pid in pids.items()} == expected, 5.0, "niceness")
