"""Background responses of one continuation, through the whole platform."""

import time

import openai

from tests.e2e.platform import Platform

_LIMIT_S = 60


def test_responses_of_one_continuation_run_one_after_another(platform: Platform) -> None:
    options = {"background_options": {"continuation_id": "story", "completion_window": "2h"}}
    with openai.OpenAI(base_url=platform.base_url, api_key="none", max_retries=0) as client:
        ids = [
            client.responses.create(
                model="demo", input="Tell me a story.", background=True, max_output_tokens=60, extra_body=options
            ).id
            for _ in range(3)
        ]
        deadline = time.monotonic() + _LIMIT_S
        seen: list[list[str]] = []
        while not seen or seen[-1][-1] not in ("completed", "incomplete"):
            assert time.monotonic() < deadline, seen[-1]
            # The last one first: one that ends in between is then seen to have ended.
            seen.append([str(client.responses.retrieve(job_id).status) for job_id in ids[::-1]][::-1])

    assert all(statuses.count("in_progress") <= 1 for statuses in seen)
    started = [["queued", *(row[place] for row in seen)].count("queued") for place in range(3)]
    assert started == sorted(started)
    assert all(status in ("completed", "incomplete") for status in seen[-1])
