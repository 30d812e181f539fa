"""What the engine promises, seen through the whole platform: caching, priority, several models, sudden death."""

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from tests.e2e.platform import Platform, running_platform
from tests.plain_http import http_client, sdk_client
from tests.waiting import wait_until, wait_until_async

MAX_RUNNING = 8
LOOKAHEAD = 2
# The platform serves the bundled model twice, under two names.
MODEL, TWIN = "demo", "twin"
LONG_PROMPT = "Tell me a story about a fox and a bear. " * 30


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with two models, small houses and keys; its generation workers may be killed."""
    home = tmp_path_factory.mktemp("engines") / "home"
    models = ("--model", MODEL, "--model", f"{TWIN}=demo")
    with running_platform(home, *models, max_running=MAX_RUNNING, lookahead=LOOKAHEAD) as started:
        yield started


@pytest.fixture(scope="module")
def keys(engines: Platform) -> dict[str, str]:
    """A key of each owner, once the API asks for keys: until then every caller is the same owner."""
    made = {owner: engines.command("keys", "create", "--owner", owner)["key"] for owner in ("alice", "bob")}
    with http_client(engines.base_url) as http:
        wait_until(lambda: http.get("/models").status_code == 401, 10.0, "an API that asks for keys")
    return made


@pytest.fixture
def alice(engines: Platform, keys: dict[str, str]) -> Iterator[OpenAI]:
    with sdk_client(engines.base_url, api_key=keys["alice"]) as client:
        yield client


@pytest.fixture
def bob(engines: Platform, keys: dict[str, str]) -> Iterator[OpenAI]:
    with sdk_client(engines.base_url, api_key=keys["bob"]) as client:
        yield client


def cached_tokens(client: OpenAI, model: str = MODEL) -> int | None:
    """What the usage of a chat about the long prompt says."""
    message: Any = {"role": "user", "content": LONG_PROMPT}  # Any: one of many kinds
    answer = client.chat.completions.create(model=model, messages=[message], max_completion_tokens=2)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 200
    assert answer.usage.prompt_tokens_details is not None
    return answer.usage.prompt_tokens_details.cached_tokens


def test_a_repeated_prompt_is_cached_for_its_owner_alone(alice: OpenAI, bob: OpenAI) -> None:
    first, again, of_another = cached_tokens(alice), cached_tokens(alice), cached_tokens(bob)

    assert first == 0
    assert again is not None
    assert again > 200
    assert of_another == 0
    assert cached_tokens(bob) == again


def engine_of(platform: Platform, model: str) -> dict[str, int]:
    """What `tokenpost ps` says of a model's engine; the worker tells it with its beat."""
    [process] = [one for one in platform.command("ps") if one["model"] == model]
    engine: dict[str, int] = process["engine"] or {}
    return engine


def test_each_model_has_its_own_worker_and_queue(engines: Platform, alice: OpenAI) -> None:
    assert {model.id for model in alice.models.list()} == {MODEL, TWIN}

    for model in (MODEL, TWIN, MODEL, TWIN, MODEL):
        answer = alice.completions.create(model=model, prompt="Once", max_tokens=9, temperature=0)
        assert answer.model == model

    # Nothing else was asked of it.
    wait_until(lambda: engine_of(engines, TWIN).get("num_output_tokens") == 18, 10.0)
    assert cached_tokens(alice, TWIN) == 0


def background_jobs(client: OpenAI, num_jobs: int, num_tokens: int) -> list[str]:
    """The ids of stories that nobody waits for."""
    create: Any = client.responses.create  # Any: fields by name fit none of the overloads
    wanted = {"model": MODEL, "temperature": 0.8, "max_output_tokens": num_tokens, "background": True}
    bodies = [{"ignore_eos": True, "seed": seed} for seed in range(num_jobs)]
    return [create(**wanted, input="Tell me a story.", extra_body=body).id for body in bodies]


def texts_of(client: OpenAI, job_ids: list[str]) -> list[str]:
    """The texts of jobs, once all have ended."""
    wait_until(lambda: all(_has_ended(client, job_id) for job_id in job_ids), 60.0, "the end of the jobs")
    return [client.responses.retrieve(job_id).output_text for job_id in job_ids]


def _has_ended(client: OpenAI, job_id: str) -> bool:
    return client.responses.retrieve(job_id).status not in ("queued", "in_progress")


def _num_in_progress(client: OpenAI, job_ids: list[str]) -> int:
    return sum(client.responses.retrieve(job_id).status == "in_progress" for job_id in job_ids)


def test_an_interactive_job_overtakes_a_house_full_of_background_jobs(engines: Platform, alice: OpenAI) -> None:
    num_jobs = MAX_RUNNING + LOOKAHEAD + 2
    undisturbed = texts_of(alice, background_jobs(alice, num_jobs, 500))
    num_preempted = wait_until(lambda: engine_of(engines, MODEL))["num_preemptions"]
    job_ids = background_jobs(alice, num_jobs, 500)
    wait_until(lambda: _num_in_progress(alice, job_ids) == MAX_RUNNING + LOOKAHEAD)

    answer = alice.responses.create(model=MODEL, input="What is 12 + 30?", temperature=0)
    still_open = [not _has_ended(alice, job_id) for job_id in job_ids]

    assert "42" in answer.output_text
    assert all(still_open)
    assert texts_of(alice, job_ids) == undisturbed
    wait_until(lambda: engine_of(engines, MODEL)["num_preemptions"] > num_preempted, 10.0)


MIXED: list[dict[str, Any]] = [
    {"temperature": 0.9, "seed": 1, "presence_penalty": 1.0, "frequency_penalty": 0.5},
    {"temperature": 1.0, "seed": 2, "n": 3, "logprobs": 3},
    {"temperature": 1.0, "seed": 3, "extra_body": {"repetition_penalty": 1.2, "min_p": 0.02}},
    {"temperature": 0.7, "seed": 4, "echo": True, "logprobs": 2},
    {"temperature": 0.8, "seed": 5, "stop": [" never so "], "logit_bias": {"300": 2}},
    {"temperature": 0},
]


async def read_all(platform: Platform, key: str, pid: int | None) -> list[list[dict[str, Any]]]:
    """The chunks of mixed completions, streamed at once; a worker is killed half-way."""
    progress = [0] * len(MIXED)

    async def read(client: AsyncOpenAI, place: int) -> list[dict[str, Any]]:
        create: Any = client.completions.create  # Any: fields by name fit none of the overloads
        body = {"ignore_eos": True, **MIXED[place].get("extra_body", {})}
        fields = MIXED[place] | {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 200, "extra_body": body}
        chunks = []
        async for chunk in await create(**fields, stream=True):
            progress[place] += 1
            chunks += [choice.model_dump() for choice in chunk.choices]
        return sorted(chunks, key=lambda choice: int(choice["index"]))

    async with AsyncOpenAI(base_url=platform.base_url, api_key=key, max_retries=0, timeout=90) as client:
        reading = [asyncio.create_task(read(client, place)) for place in range(len(MIXED))]
        if pid is not None:
            await wait_until_async(lambda: min(progress) > 20, 60, "all streams under way")
            os.kill(pid, signal.SIGKILL)
        return await asyncio.gather(*reading)


def test_a_killed_worker_changes_no_byte_of_what_it_was_asked_for(engines: Platform, keys: dict[str, str]) -> None:
    undisturbed = asyncio.run(read_all(engines, keys["alice"], None))
    [pid] = [process["pid"] for process in engines.command("ps") if process["model"] == MODEL]

    disturbed = asyncio.run(read_all(engines, keys["alice"], pid))

    assert [len(chunks) for chunks in disturbed] == [len(chunks) for chunks in undisturbed]
    assert disturbed == undisturbed


# The last one on its platform.
def test_sigterm_ends_the_platform_with_0(engines: Platform) -> None:
    wait_until(engines.is_ready, 60.0, "a ready platform")

    assert engines.stop(signal.SIGTERM) == 0
    assert engines.screen.endswith("\nStopped.\n")
