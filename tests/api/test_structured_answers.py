"""Formats of answers from the request to the worker: refusals before a job exists, the grammar in the spec, headers."""

import json
from typing import Any

import httpx2
import openai
import pytest

from tests.api.examples import CALLS, CHAT, CHAT_MESSAGES, COMPLETION, NAMES, RESPONSE, Call
from tests.api.fake_worker import FakeWorker

_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
    },
    "required": ["name", "tags"],
    "additionalProperties": False,
}


def _format(**fields: object) -> dict[str, Any]:
    return {"type": "json_schema", "name": "person", "schema": _SCHEMA, **fields}


def _chat_format(**fields: object) -> dict[str, Any]:
    named = _format(**fields)
    del named["type"]
    return {"type": "json_schema", "json_schema": named}


def _grammar_of(worker: FakeWorker) -> dict[str, Any]:
    output = worker.specs[-1].output
    assert output is not None
    assert output.grammar is not None
    (part,) = json.loads(output.grammar)["grammars"]
    assert isinstance(part, dict)
    return part


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_a_format_reaches_the_worker_as_a_grammar(call: Call, http: httpx2.Client, worker: FakeWorker) -> None:
    answer = call.post(http, structured_outputs={"regex": "[a-z]+"})
    assert answer.status_code == 200
    assert _grammar_of(worker) == {"lark_grammar": "start: /[a-z]+/"}

    assert call.post(http, response_format={"type": "json_object"}).status_code == 200
    assert _grammar_of(worker)["json_schema"]["type"] == "object"

    assert call.post(http).status_code == 200
    assert worker.specs[-1].output is None


def test_a_strict_schema_with_a_keyword_that_is_not_enforced_makes_no_job(
    client: openai.OpenAI, worker: FakeWorker
) -> None:
    with pytest.raises(openai.BadRequestError) as chat:
        client.chat.completions.create(
            model="demo",
            messages=CHAT_MESSAGES,
            response_format=_chat_format(strict=True),  # type: ignore[arg-type]
        )
    with pytest.raises(openai.BadRequestError) as response:
        client.responses.create(model="demo", input="Hi", text={"format": _format(strict=True)})  # type: ignore[typeddict-item]

    assert (chat.value.code, chat.value.param) == ("invalid_json_schema", "response_format")
    assert (response.value.code, response.value.param) == ("invalid_json_schema", "text.format.schema")
    message = "Invalid schema for response_format 'person': In context=('properties', 'tags'), 'uniqueItems' "
    assert message in chat.value.message
    assert message in response.value.message
    assert worker.num_claimed == 0


def test_keywords_that_are_left_out_are_named_on_the_answer_to_the_create_call(http: httpx2.Client) -> None:
    asked = {"response_format": _chat_format()}
    header = "tokenpost-unenforced"

    plain = CHAT.post(http, **asked, store=True, headers={"idempotency-key": "one"})
    stream = CHAT.post(http, **asked, stream=True)
    receipt = CHAT.post(http, **asked, headers={"prefer": "respond-async"})
    background = RESPONSE.post(http, text={"format": _format()}, background=True)
    replayed = CHAT.post(http, **asked, store=True, headers={"idempotency-key": "one"})
    read = http.get(f"/v1/chat/completions/{plain.json()['id']}")
    enforced = CHAT.post(http, response_format={"type": "json_object"})

    assert [one.status_code for one in (plain, stream, receipt, background)] == [200, 200, 202, 200]
    assert [one.headers.get(header) for one in (plain, stream, receipt, background)] == ["uniqueItems"] * 4
    assert replayed.json()["id"] == plain.json()["id"]
    assert [one.headers.get(header) for one in (replayed, read, enforced)] == [None] * 3


def test_a_response_echoes_its_format_with_a_boolean(client: openai.OpenAI) -> None:
    made = client.responses.create(model="demo", input="Hi", text={"format": _format()})  # type: ignore[typeddict-item]

    for shown in (made, client.responses.retrieve(made.id)):
        assert shown.text is not None
        assert shown.text.format is not None
        assert shown.text.format.to_dict() == _format(strict=False)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"guided_regex": "a(?!b)"}, "invalid_grammar", "guided_regex"),
        ({"structured_outputs": {"grammar": "start: b"}}, "invalid_grammar", "structured_outputs.grammar"),
        ({"structured_outputs": {"json": {"not": {"const": 1}}}}, "invalid_json_schema", "structured_outputs.json"),
        ({"guided_json": "{"}, "invalid_json_schema", "guided_json"),
        ({"guided_json": {"$ref": "#"}}, "invalid_json_schema", "guided_json"),
        ({"guided_json": {"enum": ["x" * 300_000]}}, "invalid_json_schema", "guided_json"),
        ({"guided_grammar": "start: " + "a " * 100_000}, "invalid_grammar", "guided_grammar"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "invalid_request", "guided_choice"),
    ],
)
def test_what_does_not_compile_is_refused_with_its_code_and_field(
    fields: dict[str, Any], code: str, param: str, http: httpx2.Client, worker: FakeWorker
) -> None:
    for call in (COMPLETION, RESPONSE):
        answer = call.post(http, **fields)

        assert answer.status_code == 400
        assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == (code, param)
    assert worker.num_claimed == 0
