"""A stream read live, a replay from the start and the tail from anywhere agree byte for byte."""

import re
from typing import Any

import httpx2
import pytest

from tests.e2e.platform import Platform

STORY = "Tell me a short story about a fox."
CASES: list[tuple[str, dict[str, Any], bool]] = [
    ("/responses", {"input": STORY}, True),
    ("/chat/completions", {"messages": [{"role": "user", "content": STORY}], "n": 2, "store": True}, False),
    ("/completions", {"prompt": ["Once upon a time", "There was"], "max_tokens": 40, "echo": True}, False),
]


def stream(method: str, url: str, **options: Any) -> tuple[str, list[bytes]]:  # Any: passed on as they are
    """(job id, frames) of a whole stream, heartbeats left out."""
    with httpx2.stream(method, url, trust_env=False, timeout=60, **options) as answer:
        assert answer.status_code == 200, answer.read()
        body = b"".join(answer.iter_raw())
        job_id = answer.headers["x-job-id"]
    body = re.sub(rb"(?m)^:[^\n]*\n", b"", body)
    return job_id, [frame + b"\n\n" for frame in body.split(b"\n\n")[:-1]]


@pytest.mark.parametrize(("path", "fields", "is_numbered"), CASES, ids=[case[0] for case in CASES])
def test_live_replay_and_every_tail_agree(
    platform: Platform, path: str, fields: dict[str, Any], is_numbered: bool
) -> None:
    options = {"stream_options": {"include_usage": True}} if path != "/responses" else {}
    body = {"model": "demo", "temperature": 0.8, "seed": 7, "stream": True, **options, **fields}
    job_id, live = stream("POST", platform.base_url + path, json=body)
    url = f"{platform.base_url}{path}/{job_id}"

    _, replay = stream("GET", url, params={"stream": "true"})
    tails = {
        count: stream("GET", url, params={"stream": "true", "starting_after": str(count - is_numbered)})[1]
        for count in range(1, len(live), 7)
    }

    assert len(live) > 20
    assert live[-1] == b"data: [DONE]\n\n"
    assert replay == live
    for count, tail in tails.items():
        assert tail == live[count:]


def test_many_readers_of_a_running_job_see_the_same(platform: Platform) -> None:
    body = {"model": "demo", "input": "Tell me a story about a bear.", "temperature": 0, "stream": True}
    with httpx2.stream("POST", platform.base_url + "/responses", json=body, trust_env=False, timeout=60) as live:
        job_id = live.headers["x-job-id"]
        url = f"{platform.base_url}/responses/{job_id}"
        _, second = stream("GET", url, params={"stream": "true"})
        _, tail = stream("GET", url, params={"stream": "true", "starting_after": "4"})
        first = b"".join(live.iter_raw())

    assert first == b"".join(second)
    assert tail == second[5:]
