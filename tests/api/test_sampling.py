"""Sampling parameters on their way to a worker, and log probabilities on their way back, with the unmodified SDK."""

from typing import Any

import httpx2
import openai
import pytest
from msgspec import structs

from storage.model_manifest import GenerationDefaults
from tests.api.examples import CALLS, CHAT_MESSAGES, COMPLETION, NAMES, RESPONSE, Call, without_heartbeats
from tests.api.fake_worker import TEXT, WORDS, FakeWorker
from tests.protocol.examples import manifest
from tests.waiting import wait_until

EXTRA: dict[str, Any] = {
    "top_k": 5,
    "min_p": 0.25,
    "repetition_penalty": 1.5,
    "stop_token_ids": [7],
    "ignore_eos": True,
    "min_tokens": 2,
    "priority": -3,
}
BOTH: dict[str, Any] = {"temperature": 0.5, "top_p": 0.75}
OPENAIS: dict[str, Any] = {
    **BOTH,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "logit_bias": {"50": -100},
    "seed": 11,
    "stop": ["x"],
}


def test_every_parameter_reaches_the_worker_from_every_protocol(client: openai.OpenAI, worker: FakeWorker) -> None:
    client.chat.completions.create(model="demo", messages=CHAT_MESSAGES, max_tokens=9, **OPENAIS, extra_body=EXTRA)  # type: ignore[arg-type]
    client.completions.create(model="demo", prompt="Hi", max_tokens=9, **OPENAIS, extra_body=EXTRA)
    own = {name: value for name, value in OPENAIS.items() if name not in BOTH}
    client.responses.create(model="demo", input="Hi", max_output_tokens=9, **BOTH, extra_body={**own, **EXTRA})

    first, *others = (spec.sampling for spec in worker.specs)
    assert others == [first, first]
    assert (first.logit_bias, first.seed, first.min_p, first.stop_token_ids) == (((50, -100.0),), 11, 0.25, (7,))
    assert [spec.priority for spec in worker.specs] == [-3, -3, -3]


def test_jobs_that_nobody_waits_for_have_less_priority(http: httpx2.Client, worker: FakeWorker) -> None:
    for call in CALLS:
        call.post(http)
    RESPONSE.post(http, background=True, stream=True)
    COMPLETION.post(http, headers={"prefer": "wait=20"})

    assert [spec.priority for spec in worker.specs] == [0, 0, 0, 10, 10]


def test_a_models_defaults_are_used_and_shown(client: openai.OpenAI, worker: FakeWorker) -> None:
    defaults = GenerationDefaults(temperature=0.25, top_k=7)
    worker.put_manifest(structs.replace(manifest(), generation_defaults=defaults))
    wait_until(lambda: client.responses.create(model="demo", input="Hi").temperature == 0.25)

    plain = client.responses.create(model="demo", input="Hi")
    own = client.responses.create(model="demo", input="Hi", temperature=1, top_p=0.5)

    assert [spec.sampling.temperature for spec in worker.specs[-2:]] == [0.25, 1.0]
    assert [spec.sampling.top_k for spec in worker.specs[-2:]] == [7, 7]
    assert (plain.temperature, plain.top_p) == (0.25, 1.0)
    assert (own.temperature, own.top_p) == (1.0, 0.5)
    worker.put_manifest(manifest())
    wait_until(lambda: client.responses.create(model="demo", input="Hi").temperature == 1.0)
    assert client.responses.retrieve(plain.id).temperature == 0.25


def test_a_response_echoes_what_it_was_asked_with(client: openai.OpenAI) -> None:
    shown = client.responses.create(
        model="demo",
        input="Hi",
        include=["message.output_text.logprobs"],
        top_logprobs=4,
        extra_body={"presence_penalty": 0.5, "frequency_penalty": -1},
    ).to_dict()

    assert [shown[name] for name in ("top_logprobs", "presence_penalty", "frequency_penalty")] == [4, 0.5, -1]


def test_a_chat_tells_log_probabilities(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "demo", "messages": CHAT_MESSAGES, "logprobs": True, "top_logprobs": 3}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    with client.chat.completions.stream(**asked) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()

    reported = whole.choices[0].logprobs
    assert reported is not None
    assert reported.content is not None
    assert [one.token for one in reported.content] == list(WORDS)
    assert b"".join(bytes(one.bytes or ()) for one in reported.content).decode() == TEXT
    assert {len(one.top_logprobs) for one in reported.content} == {3}
    streamed = [one for chunk in chunks if (logprobs := chunk.choices[0].logprobs) for one in logprobs.content or ()]
    assert streamed == reported.content
    assert "logprobs.content.delta" in kinds
    assert final.choices[0].logprobs is not None
    assert final.choices[0].logprobs.content == reported.content


def test_a_response_tells_log_probabilities(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    whole = client.responses.create(model="demo", input="Hi", **asked)
    with client.responses.stream(model="demo", input="Hi", **asked) as stream:
        deltas = [event for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()

    reported = whole.output[0].content[0].logprobs  # type: ignore[union-attr]
    assert reported is not None
    assert [one.token for one in reported] == list(WORDS)
    assert [one.token for delta in deltas for one in delta.logprobs] == list(WORDS)
    assert final.output[0].content[0].logprobs == reported  # type: ignore[union-attr]
    stored = client.responses.retrieve(whole.id, include=["message.output_text.logprobs"])
    assert stored == client.responses.retrieve(whole.id) == whole
    # What was reported can be sent back as it is.
    client.responses.create(model="demo", input=[*whole.output, {"role": "user", "content": "?"}])  # type: ignore[list-item]


def test_a_completion_tells_log_probabilities(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "demo", "prompt": ["Hi", "Ho!"], "logprobs": 2}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True))

    for choice in whole.choices:
        reported = choice.logprobs
        assert reported is not None
        assert reported.tokens == list(WORDS)
        assert reported.text_offset == [len("".join(WORDS[:count])) for count in range(len(WORDS))]
        assert reported.top_logprobs is not None
        assert {len(one) for one in reported.top_logprobs} == {3}
        mine = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].index == choice.index]
        assert [one for part in mine if part for one in part.token_logprobs or ()] == reported.token_logprobs


@pytest.mark.parametrize("max_tokens", [0, 16])
def test_an_echo_tells_those_of_the_prompt(client: openai.OpenAI, max_tokens: int) -> None:
    whole = client.completions.create(model="demo", prompt="Hi!", echo=True, logprobs=1, max_tokens=max_tokens)

    answer = TEXT if max_tokens else ""
    reported = whole.choices[0].logprobs
    assert reported is not None
    assert whole.choices[0].text == "Hi!" + answer
    assert (reported.token_logprobs or [])[:3] == [None, -2.0, -2.0]
    assert (reported.text_offset or [])[:4] == [0, 1, 2, 3][: 4 if max_tokens else 3]
    assert len(reported.tokens or ()) == 3 + (len(WORDS) if max_tokens else 0)


def test_the_best_of_several_is_shown(client: openai.OpenAI, http: httpx2.Client) -> None:
    whole = client.completions.create(model="demo", prompt="Hi", n=2, best_of=4, logprobs=0)

    likeliest = [(choice.logprobs.token_logprobs or [])[0] for choice in whole.choices if choice.logprobs]
    assert likeliest == [-1 / 4, -1 / 3]
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 4 * len(WORDS)
    for answer in (
        http.get(f"/v1/completions/{whole.id}", params={"stream": "true"}),
        http.post("/v1/streaming/completions", json={**COMPLETION.body, "best_of": 2}),
    ):
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] in ("stream", "best_of")
    assert http.get(f"/v1/completions/{whole.id}").json() == whole.to_dict()


def test_an_asynchronous_completion_takes_them_all(http: httpx2.Client) -> None:
    wanted = {"best_of": 3, "echo": True, "logprobs": 1, "min_p": 0.5}
    accepted = http.post("/v1/async/completions", json={**COMPLETION.body, **wanted})
    assert accepted.status_code == 202

    done = wait_until(lambda: http.get(accepted.headers["location"]).json().get("choices"))

    assert [(choice["text"], choice["logprobs"]["token_logprobs"][-1]) for choice in done] == [("Hi" + TEXT, -1 / 3)]


TELLING: list[dict[str, object]] = [
    {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
    {"logprobs": True, "top_logprobs": 2, "n": 2},
    {"logprobs": 2, "echo": True, "n": 2},
]


@pytest.mark.parametrize(("call", "fields"), list(zip(CALLS, TELLING, strict=True)), ids=NAMES)
def test_a_replay_tells_them_byte_for_byte(http: httpx2.Client, call: Call, fields: dict[str, object]) -> None:
    live = call.post(http, stream=True, **fields)
    job_id = live.headers["x-job-id"]

    replayed = http.get(call.url_of(job_id), params={"stream": "true"})

    assert b"-0.5" in live.content
    assert without_heartbeats(replayed.content) == without_heartbeats(live.content)


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_usage_tells_what_was_cached(http: httpx2.Client, worker: FakeWorker, call: Call) -> None:
    worker.num_cached = 2

    usage = call.post(http).json()["usage"]

    details = usage["input_tokens_details"] if call is RESPONSE else usage["prompt_tokens_details"]
    assert details["cached_tokens"] == 2
