"""The operators' commands on a running platform, and what its supervisor promises."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import psutil
from openai import OpenAI

from tests.e2e.platform import BUNDLED, Platform, bare_environment, running_platform
from tests.waiting import wait_until

STORY = "Tell me a story about a hen."


def test_every_part_runs_and_says_so(platform: Platform) -> None:
    found = {process["role"]: process for process in platform.command("ps")}

    assert set(found) == {"supervisor", "redis", "api", "cpu worker", "fork server", "generation worker"}
    assert found["supervisor"]["pid"] == platform.pid
    assert found["generation worker"]["state"] == "ready"
    assert all(psutil.pid_exists(process["pid"]) for process in found.values())


def test_the_doctor_finds_nothing_wrong(platform: Platform) -> None:
    assert platform.command("doctor")["is_ok"]


def test_models_are_listed_as_the_api_lists_them(platform: Platform, client: OpenAI) -> None:
    [reported] = [model for model in platform.command("models", "list") if model["status"] is not None]

    [served] = client.models.list().data
    assert (reported["id"], reported["status"]) == (served.id, "ready")
    assert reported["context_length"] == served.context_length  # type: ignore[attr-defined]  # our addition to OpenAI's


def test_a_tail_follows_a_running_job_to_its_end(platform: Platform, client: OpenAI) -> None:
    job = client.responses.create(model="demo", input=STORY, temperature=0, background=True)
    line = [sys.executable, "-m", "api.cli.main", "jobs", "tail", job.id, "--home", str(platform.home)]

    reported = subprocess.run(line, capture_output=True, text=True, check=True, env=bare_environment(), timeout=120)

    ended = client.responses.retrieve(job.id)
    assert ended.status == "completed"
    assert reported.stdout == ended.output_text + "\n"
    assert reported.stderr.startswith("tokenpost: completed, ")


def test_a_running_job_is_cancelled_by_command(platform: Platform, client: OpenAI) -> None:
    # As long as the context: the command takes a second to start.
    endless = {"ignore_eos": True}
    job = client.responses.create(
        model="demo", input=STORY, temperature=0, background=True, max_output_tokens=3900, extra_body=endless
    )
    wait_until(lambda: client.responses.retrieve(job.id).status == "in_progress", 30.0, "the job's start")

    platform.command("jobs", "cancel", job.id)

    assert client.responses.retrieve(job.id).status == "cancelled"


def test_the_api_comes_back_without_refusing_anyone_and_all_stops_in_order(tmp_path: Path) -> None:
    with running_platform(tmp_path / "home") as own:
        children = psutil.Process(own.pid).children(recursive=True)
        [api] = own.pids_of("api")
        os.kill(api, signal.SIGKILL)

        # Nobody accepts for a moment; the caller waits in the supervisor's socket.
        assert httpx2.get(f"{own.root_url}/healthz", trust_env=False, timeout=30).status_code == 200
        assert own.pids_of("api") != [api]
        children += psutil.Process(own.pid).children(recursive=True)
        for role in ("redis", "cpu worker", "generation worker"):
            [pid] = own.pids_of(role)
            os.kill(pid, signal.SIGKILL)
        for name in ("api", "redis", "cpu-worker", "worker-demo"):
            wait_until(lambda name=name: f" {name} is back after " in own.screen, 60, f"the return of {name}")
        # Forked with all imports done, not started anew (on Linux without a GPU).
        [worker], [fork_server] = own.pids_of("generation worker"), own.pids_of("fork server")
        assert psutil.Process(worker).cmdline() == psutil.Process(fork_server).cmdline()
        assert psutil.Process(worker).ppid() == own.pid
        children += psutil.Process(own.pid).children(recursive=True)
    assert not [child for child in children if child.is_running()]
    assert "api ended (SIGKILL); starting again in 0.5 s" in own.screen
    assert own.screen.endswith("Stopped.\n")
    assert not (own.home / "run" / "state.json").exists()


def test_sigterm_ends_the_platform_with_0(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "api.cli.main", "up", "--home", str(tmp_path / "home"), "--port", "0", *BUNDLED]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=bare_environment()) as process:
        assert process.stdout is not None
        shown = iter(process.stdout.readline, "")
        assert any(text.startswith("Ctrl-C stops everything.") for text in shown)

        process.terminate()

        assert process.wait(60) == 0
        assert list(shown)[-1] == "Stopped.\n"
