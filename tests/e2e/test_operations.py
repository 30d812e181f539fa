"""The operators' commands on a running platform."""

import subprocess
import sys

import psutil
from openai import OpenAI

from tests.e2e.platform import Platform, bare_environment
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
    [reported] = platform.command("models", "list")

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
