"""What is refused, and how it is reported."""

import httpx2
import openai
import pytest

from tests.api.examples import CALLS, CHAT, COMPLETION, RESPONSE, Call
from tests.api.fake_worker import FakeWorker
from tests.api.server import Server
from tests.waiting import wait_until


def _error(answer: httpx2.Response, status: int) -> dict[str, str | None]:
    """The envelope's inside; checks that it is whole."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert int(answer.headers["openai-processing-ms"]) >= 0
    body = answer.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    return body["error"]  # type: ignore[no-any-return]


def test_an_unknown_model_is_not_found(http: httpx2.Client) -> None:
    for call in CALLS:
        error = _error(call.post(http, model="no-such"), 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")


def test_a_prompt_over_the_context_is_refused_now(http: httpx2.Client) -> None:
    long = "x" * 5000
    fields: dict[str, object] = {"input": long, "messages": [{"role": "user", "content": long}], "prompt": long}
    for call, (name, value) in zip(CALLS, fields.items(), strict=True):
        error = _error(call.post(http, **{name: value}), 400)
        assert (error["code"], error["param"]) == ("context_length_exceeded", name)


def test_no_field_is_accepted_and_ignored(http: httpx2.Client) -> None:
    for call in CALLS:
        assert _error(call.post(http, no_such=1), 400)["param"] == "no_such"
        assert _error(call.post(http, temperature="hot"), 400)["param"] == "temperature"
        assert _error(call.post(http, service_tier="golden"), 400)["param"] == "service_tier"
        assert _error(call.post(http, service_tier="flex", priority=9), 400)["param"] == "priority"


WRONG_QUERIES = [
    ("/v1/completions/{id}?no_such=1", "no_such"),
    ("/v1/responses/{id}?stream=maybe", "stream"),
    ("/v1/responses/{id}?stream=true&stream=true", "stream"),
    ("/v1/responses/{id}?stream=true&starting_after=x", "starting_after"),
    ("/v1/responses/{id}?stream=true&starting_after=-2", "starting_after"),
    ("/v1/responses/{id}?stream=true&starting_after=99999999999999999999999", "starting_after"),
    ("/v1/responses/{id}?starting_after=1", "starting_after"),
    ("/v1/responses/{id}?include[]=file_search_call.results", "include"),
    ("/v1/responses/{id}?include[]=file_search_call.results&include[]=message.output_text.logprobs", "include"),
    ("/v1/responses/{id}/input_items?include[]=message.output_text.logprobs", "include"),
    ("/v1/responses/{id}?include_obfuscation=true", "include_obfuscation"),
    ("/v1/responses/{id}/input_items?limit=0", "limit"),
    ("/v1/responses/{id}/input_items?limit=101", "limit"),
    ("/v1/responses/{id}/input_items?order=up", "order"),
    ("/v1/responses/{id}/input_items?after=nothing", "after"),
    ("/v1/chat/completions?limit=many", "limit"),
    ("/v1/chat/completions?metadata=x", "metadata"),
    ("/v1/webhook_secret?filter=x", "filter"),
]


IGNORED = "client_version=0.155.1&client_version=1&no_such[]=x"


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/models", "/v1/models/demo", "/v1/responses/{response}", "/v1/responses/{response}/input_items"),
        *("/v1/chat/completions", "/v1/chat/completions/{chat}", "/v1/chat/completions/{chat}/messages"),
        *("/v1/webhook_endpoints", "/v1/webhook_event_types"),
    ],
)
def test_gets_that_openai_answers_ignore_unknown_parameters(http: httpx2.Client, path: str) -> None:
    ids = {"response": RESPONSE.post(http).json()["id"], "chat": CHAT.post(http, store=True).json()["id"]}

    answer = http.get(path.format(**ids) + "?" + IGNORED)

    assert answer.status_code == 200
    assert answer.json() == http.get(path.format(**ids)).json()


@pytest.mark.parametrize("call", [CHAT, COMPLETION], ids=["chat", "completion"])
def test_options_of_a_stream_need_a_stream(http: httpx2.Client, call: Call) -> None:
    options = {"include_usage": True}

    for fields in ({}, {"stream": False}):
        assert _error(call.post(http, stream_options=options, **fields), 400)["param"] == "stream_options"
    always = "/v1/streaming/chat" if call is CHAT else "/v1/streaming/completions"
    assert http.post(always, json={**call.body, "stream_options": options}).status_code == 200
    if call is COMPLETION:
        refused = http.post("/v1/async/completions", json={**call.body, "stream_options": options})
        assert _error(refused, 400)["param"] == "stream_options"


def test_a_wrong_query_is_refused_by_name(http: httpx2.Client) -> None:
    job_id = RESPONSE.post(http).json()["id"]

    for path, param in WRONG_QUERIES:
        assert _error(http.get(path.format(id=job_id)), 400)["param"] == param, path
    for method, path in (("DELETE", "/v1/responses/{id}"), ("POST", "/v1/responses/{id}/cancel"),
                         ("DELETE", "/v1/chat/completions/{id}"), ("DELETE", "/v1/async/completions/{id}"),
                         ("POST", "/v1/async/completions")):  # fmt: skip
        refused = http.request(method, path.format(id=job_id), params={"force": "true"})
        assert _error(refused, 400)["param"] == "force", path


def test_unknown_paths_methods_and_formats_speak_the_envelope(http: httpx2.Client) -> None:
    assert _error(http.get("/v1/nowhere"), 404)["code"] == "unknown_url"
    assert _error(http.put("/v1/responses"), 405)["code"] == "method_not_allowed"
    assert _error(http.get("/v1/responses/"), 404)
    text = {"content-type": "text/plain"}
    assert _error(http.post("/v1/responses", content=b"{}", headers=text), 415)["code"] == "unsupported_media_type"
    packed = {"content-type": "application/json", "content-encoding": "zstd"}
    assert _error(http.post("/v1/responses", content=b"{}", headers=packed), 415)
    assert _error(http.post("/v1/responses?stream=true", json=RESPONSE.body), 400)["param"] == "stream"


def test_the_interface_is_described_with_its_bodies_and_errors(http: httpx2.Client) -> None:
    schema = http.get("/openapi.json").json()

    create = schema["paths"]["/v1/responses"]["post"]
    body = create["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert schema["components"]["schemas"][body]["additionalProperties"] is False
    assert "input" in schema["components"]["schemas"][body]["properties"]
    for path in ("/v1/responses", "/v1/chat/completions", "/v1/completions"):
        reference = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        fields = schema["components"]["schemas"][reference.rpartition("/")[2]]["properties"]
        assert {"type": "number", "minimum": -2, "maximum": 2} in fields["presence_penalty"]["anyOf"]
        assert {"min_p", "logit_bias", "stop_token_ids", "ignore_eos", "min_tokens", "priority"} <= set(fields)
    # FastAPI's own error shape is never sent.
    assert "HTTPValidationError" not in schema["components"]["schemas"]
    assert {"200", "400", "401", "413", "429", "503"} <= create["responses"].keys()


@pytest.mark.parametrize("is_chunked", [False, True], ids=["announced", "chunked"])
def test_a_body_over_the_limit_is_too_large(http: httpx2.Client, is_chunked: bool) -> None:
    body = b'{"model": "demo", "input": "' + b"x" * 10_000_000 + b'"}'
    pieces = (body[start : start + 100_000] for start in range(0, len(body), 100_000))
    headers = {"content-type": "application/json"}

    answer = http.post("/v1/responses", content=pieces if is_chunked else body, headers=headers)

    assert _error(answer, 413)["code"] == "request_too_large"


def test_a_body_under_the_limit_is_read(http: httpx2.Client) -> None:
    answer = http.post("/v1/responses", json={"model": "demo", "input": "x" * 9_900_000})

    assert _error(answer, 400)["code"] == "context_length_exceeded"


def test_without_a_live_worker_only_background_calls_are_taken(http: httpx2.Client, worker: FakeWorker) -> None:
    worker.die()
    wait_until(lambda: http.get("/v1/models/demo").json()["status"] == "offline", 2.0)

    for call in CALLS:
        for stream in (False, True):
            answer = call.post(http, stream=stream)
            assert _error(answer, 503)["code"] == "model_unavailable"
            assert 0 < int(answer.headers["retry-after"]) <= 120
    queued = RESPONSE.post(http, background=True)
    assert queued.json()["status"] == "queued"
    assert http.post("/v1/async/completions", json=COMPLETION.body).status_code == 202
    assert CHAT.post(http, headers={"prefer": "respond-async"}).status_code == 202


def test_previous_responses_must_have_ended(http: httpx2.Client, worker: FakeWorker) -> None:
    worker.pauses_at = 2
    running = RESPONSE.post(http, background=True).json()["id"]
    chat = CHAT.post(http, headers={"prefer": "respond-async"}).headers["x-job-id"]

    for previous in (running, chat, "resp_nothing"):
        error = _error(RESPONSE.post(http, previous_response_id=previous), 400)
        assert (error["code"], error["param"]) == ("previous_response_not_found", "previous_response_id")


def test_a_request_id_is_kept_when_it_can_be(http: httpx2.Client) -> None:
    kept = http.get("/v1/models", headers={"x-request-id": "mine-1"})
    replaced = http.get("/v1/models", headers={"x-request-id": "not\tmine" * 40})

    assert kept.headers["x-request-id"] == "mine-1"
    assert replaced.headers["x-request-id"].startswith("req_")


def test_models_are_listed_with_what_they_can(client: openai.OpenAI, http: httpx2.Client) -> None:
    [model] = client.models.list().data

    assert client.models.retrieve("demo") == model
    shown = http.get("/v1/models/demo").json()
    assert shown["status"] == "ready"
    assert shown["context_length"] == 1000
    assert shown["capabilities"] == {"chat": True, "completion": True}
    assert _error(http.get("/v1/models/Qwen/no-such"), 404)["code"] == "model_not_found"


def test_readiness_says_what_is_missing(http: httpx2.Client, worker: FakeWorker, server: Server) -> None:
    ready = {"status": "ok", "database": "ok", "redis": "ok", "worker": "ok", "models": {"demo": "ready"}}
    assert http.get("/readyz").json() == ready

    worker.die()
    missing = wait_until(lambda: _not_ready(http), 2.0)

    assert missing["worker"] == "unavailable"
    assert missing["database"] == missing["redis"] == "ok"
    assert http.get("/healthz").status_code == 200


def _not_ready(http: httpx2.Client) -> dict[str, str] | None:
    answer = http.get("/readyz")
    return answer.json() if answer.status_code == 503 else None
