"""A batch whose platform is killed again and again: each line stands in exactly one file, once, and unchanged."""

import io
import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from openai import APIError, OpenAI
from openai.types import Batch

from tests.e2e.platform import Platform, running_platform
from tests.plain_http import sdk_client
from tests.waiting import wait_until

# `make drill` kills 30 times.
NUM_KILLS = int(os.environ.get("TOKENPOST_TEST_KILLS", "3"))
NUM_LINES = 100 * NUM_KILLS
_ROLES = ("cpu worker", "generation worker", "api", "redis")
_ANIMALS = ("fox", "bear", "cat", "wolf", "hen", "mouse", "owl")
_LIMIT_S = 300.0
# A job that was on so many workers that died would be taken for the reason.
_SETTINGS = {"max_lost_attempts": 1000}
_OPEN = ("validating", "in_progress", "finalizing")


def _content() -> bytes:
    lines: list[dict[str, Any]] = []
    for number in range(NUM_LINES):
        animal = _ANIMALS[number % len(_ANIMALS)]
        body = {
            "model": "demo",
            "messages": [{"role": "user", "content": f"Tell me a story about a {animal}."}],
            "temperature": 0,
            "max_tokens": 40,
            "ignore_eos": True,
        }
        if number % 50 == 7:
            body["stream"] = True
        url = "/v1/chat/completions"
        lines.append({"custom_id": f"request-{number}", "method": "POST", "url": url, "body": body})
    return "\n".join(map(json.dumps, lines)).encode()


def _create(client: OpenAI) -> str:
    file = client.files.create(purpose="batch", file=("in.jsonl", io.BytesIO(_content())))
    made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    return made.id


def _batch(client: OpenAI, batch_id: str) -> Batch | None:
    """The batch; None while the API is away."""
    try:
        return client.batches.retrieve(batch_id)
    except APIError:
        return None


def _kill_one(platform: Platform, number: int) -> None:
    """End one process of the platform, each role in turn; its supervisor starts another."""
    role = _ROLES[number % len(_ROLES)]
    for pid in platform.pids_of(role)[:1]:
        os.kill(pid, signal.SIGKILL)


def _has_ended(client: OpenAI, batch_id: str) -> bool:
    batch = _batch(client, batch_id)
    return batch is not None and batch.status not in _OPEN


def _check(client: OpenAI, batch: Batch) -> None:
    ids: Counter[str] = Counter()
    texts: dict[str, set[str]] = {}
    for file_id in (batch.output_file_id, batch.error_file_id):
        for line in client.files.content(file_id or "").text.splitlines():
            answer = json.loads(line)
            ids[answer["custom_id"]] += 1
            if file_id == batch.output_file_id:
                animal = _ANIMALS[int(answer["custom_id"].rpartition("-")[2]) % len(_ANIMALS)]
                text = answer["response"]["body"]["choices"][0]["message"]["content"]
                texts.setdefault(animal, set()).add(text)
    assert ids == {f"request-{number}": 1 for number in range(NUM_LINES)}
    # Greedy answers: a line that was continued says what all others with its prompt say.
    assert {animal: len(found) for animal, found in texts.items()} == dict.fromkeys(_ANIMALS, 1)
    assert batch.request_counts is not None
    refused = len(range(7, NUM_LINES, 50))
    assert (batch.request_counts.completed, batch.request_counts.failed) == (NUM_LINES - refused, refused)


def test_a_batch_outlives_its_platform(tmp_path: Path) -> None:
    generator, batch_id, num_kills = random.Random(5), "", 0
    while num_kills < NUM_KILLS:
        # Every third time all of it is killed at once, and started again on the same home.
        with running_platform(tmp_path / "home", **_SETTINGS) as platform, sdk_client(platform.base_url) as client:
            batch_id = batch_id or _create(client)
            for _ in range(3):
                time.sleep(generator.uniform(0.0, 2.0))
                num_kills += 1
                if num_kills % 3 == 0:
                    platform.supervisor.kill()
                    break
                _kill_one(platform, num_kills)
    with running_platform(tmp_path / "home", **_SETTINGS) as platform, sdk_client(platform.base_url) as client:
        wait_until(lambda: _has_ended(client, batch_id), _LIMIT_S, "the end of the batch")
        batch = client.batches.retrieve(batch_id)

        assert batch.status == "completed"
        _check(client, batch)
