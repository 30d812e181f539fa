"""What the platform promises when parts of it die: no stream loses, repeats or changes anything."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.e2e.platform import BUNDLED, Platform, bare_environment, running_platform
from tests.waiting import wait_until, wait_until_async

NUM_STREAMS = 20
PROMPTS = [f"Tell me a story about a {animal}." for animal in ("fox", "bear", "cat", "wolf", "hen")]


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose parts may be killed."""
    with running_platform(tmp_path_factory.mktemp("fragile") / "home") as started:
        yield started


async def read_story(client: httpx2.AsyncClient, index: int, progress: list[int]) -> list[bytes]:
    """All frames of a streamed story; `progress` counts those of each stream while they come."""
    body = {
        "model": "demo",
        "input": PROMPTS[index % len(PROMPTS)],
        "stream": True,
        "temperature": 0.7,
        "seed": index,
        "background": True,
    }
    seen = b""
    async with client.stream("POST", "/responses", json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for piece in answer.aiter_raw():
            seen += piece
            progress[index] = seen.count(b"\n\n")
    seen = re.sub(rb"(?m)^:[^\n]*\n", b"", seen)
    return [frame for frame in seen.split(b"\n\n") if frame.startswith(b"event")]


def text_of(frames: list[bytes]) -> str:
    """The text of a stream, which must be complete and without gap."""
    events = [json.loads(frame.partition(b"\ndata: ")[2]) for frame in frames]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.completed"
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == text
    return text


async def read_all(platform: Platform, fault: "asyncio.Future[None] | None", progress: list[int]) -> list[str]:
    """The texts of all streams read at once."""
    limits = httpx2.Limits(max_connections=NUM_STREAMS)
    async with httpx2.AsyncClient(base_url=platform.base_url, trust_env=False, timeout=90, limits=limits) as client:
        streams = [asyncio.create_task(read_story(client, index, progress)) for index in range(NUM_STREAMS)]
        if fault is not None:
            await wait_until_async(lambda: min(progress) > 10, 60, "all streams under way")
            fault.set_result(None)
        return [text_of(frames) for frames in await asyncio.gather(*streams)]


def test_streams_survive_the_death_of_the_generation_worker(fragile: Platform) -> None:
    undisturbed = asyncio.run(read_all(fragile, None, [0] * NUM_STREAMS))

    async def disturbed() -> list[str]:
        fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        [pid] = fragile.pids_of("generation worker")
        fault.add_done_callback(lambda _: os.kill(pid, signal.SIGKILL))
        return await read_all(fragile, fault, [0] * NUM_STREAMS)

    assert asyncio.run(disturbed()) == undisturbed


def test_a_foreground_caller_who_leaves_stops_the_generation(platform: Platform) -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": PROMPTS[0]}], "stream": True, "store": True}
    with httpx2.stream("POST", f"{platform.base_url}/chat/completions", json=body, trust_env=False) as answer:
        job_id = answer.headers["x-job-id"]
        next(answer.iter_raw())

    wait_until(lambda: platform.command("jobs", "show", job_id)["ended_at"], 10, "the end of the job")

    assert platform.command("jobs", "show", job_id)["status"] == "cancelled"


def test_nothing_is_left_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "api.cli.main", "up", "--home", str(tmp_path / "home"), "--port", "0", *BUNDLED]
    with (tmp_path / "screen.txt").open("wb") as screen:
        supervisor = subprocess.Popen(line, stdout=screen, stderr=subprocess.STDOUT, env=bare_environment())
        children = wait_until(
            lambda: found if len(found := psutil.Process(supervisor.pid).children(recursive=True)) >= 4 else [],
            60,
            "the platform's processes",
        )

        supervisor.kill()
        supervisor.wait(10)

    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


# The last one on its platform.
def test_the_api_comes_back_without_refusing_anyone_and_all_stops_in_order(fragile: Platform) -> None:
    shown_before = len(fragile.screen)
    children = psutil.Process(fragile.pid).children(recursive=True)
    [api] = fragile.pids_of("api")
    os.kill(api, signal.SIGKILL)

    # Nobody accepts for a moment; the caller waits in the supervisor's socket.
    assert httpx2.get(f"{fragile.root_url}/healthz", trust_env=False, timeout=30).status_code == 200
    assert fragile.pids_of("api") != [api]
    children += psutil.Process(fragile.pid).children(recursive=True)
    for role in ("redis", "cpu worker", "generation worker"):
        [pid] = fragile.pids_of(role)
        os.kill(pid, signal.SIGKILL)
    for name in ("api", "redis", "cpu-worker", "worker-demo"):
        line = f" {name} is back after "
        wait_until(lambda line=line: line in fragile.screen[shown_before:], 60, f"the return of {name}")
    # Forked with all imports done, not started anew (on Linux without a GPU).
    [worker], [fork_server] = fragile.pids_of("generation worker"), fragile.pids_of("fork server")
    assert psutil.Process(worker).cmdline() == psutil.Process(fork_server).cmdline()
    assert psutil.Process(worker).ppid() == fragile.pid
    children += psutil.Process(fragile.pid).children(recursive=True)

    fragile.stop(signal.SIGINT)

    assert not [child for child in children if child.is_running()]
    assert "api ended (SIGKILL); starting again in 0.5 s" in fragile.screen[shown_before:]
    assert fragile.screen.endswith("Stopped.\n")
    assert not (fragile.home / "run" / "state.json").exists()
