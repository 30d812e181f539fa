"""Fields that ask for a format of the answer, in all three protocols."""

import json
from typing import Any

import pytest

from api.protocol.chat.request import ChatRequest
from api.protocol.completions.request import CompletionRequest
from api.protocol.responses.echoed_format import echoed_format
from api.protocol.responses.request import ResponseRequest
from api.protocol.structured.constraints import Constraint, ConstraintKind, Judged
from api.protocol.structured.format_fields import answer_part, constraints_of
from storage.errors import InvalidRequest

_BODIES: dict[type[ChatRequest | CompletionRequest | ResponseRequest], dict[str, Any]] = {
    ChatRequest: {"model": "m", "messages": [{"role": "user", "content": "x"}]},
    CompletionRequest: {"model": "m", "prompt": "x"},
    ResponseRequest: {"model": "m", "input": "x"},
}
_SCHEMA = {"type": "object", "properties": {"b": {}, "a": {}}}
_NAMED = {"name": "n", "schema": _SCHEMA, "strict": True}


def constraint_of(kind: type[ChatRequest | CompletionRequest | ResponseRequest], **fields: object) -> Constraint | None:
    """The only constraint of a request with these fields."""
    found = constraints_of(kind.parse_value({**_BODIES[kind], **fields}))
    assert len(found) <= 1
    return found[0] if found else None


def refused(kind: type[ChatRequest | CompletionRequest | ResponseRequest], **fields: object) -> str | None:
    """The field that a refusal names."""
    with pytest.raises(InvalidRequest) as error:
        kind.parse_value({**_BODIES[kind], **fields})
    return error.value.param


@pytest.mark.parametrize("kind", _BODIES)
@pytest.mark.parametrize(
    ("fields", "param", "constraint_kind", "text"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format", ConstraintKind.SCHEMA, {"type": "object"}),
        ({"structured_outputs": {"json": _SCHEMA}}, "structured_outputs.json", ConstraintKind.SCHEMA, _SCHEMA),
        (
            {"structured_outputs": {"json": json.dumps(_SCHEMA)}},
            "structured_outputs.json",
            ConstraintKind.SCHEMA,
            _SCHEMA,
        ),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs.regex", ConstraintKind.REGEX, "a"),
        ({"structured_outputs": {"choice": ["a"]}}, "structured_outputs.choice", ConstraintKind.CHOICE, ["a"]),
        ({"structured_outputs": {"grammar": "start:"}}, "structured_outputs.grammar", ConstraintKind.GRAMMAR, "start:"),
        (
            {"structured_outputs": {"json_object": True, "regex": None}},
            "structured_outputs.json_object",
            ConstraintKind.SCHEMA,
            {"type": "object"},
        ),
        ({"guided_json": _SCHEMA}, "guided_json", ConstraintKind.SCHEMA, _SCHEMA),
        ({"guided_regex": "a"}, "guided_regex", ConstraintKind.REGEX, "a"),
        ({"guided_choice": ["a", "b"]}, "guided_choice", ConstraintKind.CHOICE, ["a", "b"]),
        ({"guided_grammar": "start:"}, "guided_grammar", ConstraintKind.GRAMMAR, "start:"),
    ],
)
def test_every_name_of_a_format_is_read_and_named_as_it_was_sent(
    kind: type[ChatRequest | CompletionRequest | ResponseRequest],
    fields: dict[str, object],
    param: str,
    constraint_kind: ConstraintKind,
    text: object,
) -> None:
    found = constraint_of(kind, **fields)

    assert found is not None
    assert (found.param, found.title, found.kind, found.is_strict) == (param, param, constraint_kind, True)
    read = found.text if constraint_kind in (ConstraintKind.REGEX, ConstraintKind.GRAMMAR) else json.loads(found.text)
    assert read == text


@pytest.mark.parametrize("strict", [True, False, None])
def test_a_named_schema_keeps_its_order_and_is_as_strict_as_it_says(strict: bool | None) -> None:
    named = {**_NAMED, "strict": strict, "description": "d"}

    chat = constraint_of(ChatRequest, response_format={"type": "json_schema", "json_schema": named})
    response = constraint_of(ResponseRequest, text={"format": {"type": "json_schema", **named}})

    assert chat is not None
    assert response is not None
    assert (chat.param, response.param) == ("response_format", "text.format.schema")
    assert chat.title == response.title == "response_format 'n'"
    assert chat.text == response.text == json.dumps(_SCHEMA, separators=(",", ":"))
    assert chat.is_strict == response.is_strict == (strict is True)


def test_plain_text_is_no_format() -> None:
    assert constraint_of(ChatRequest, response_format={"type": "text"}) is None
    assert constraint_of(ResponseRequest, text={"format": {"type": "text"}}) is None
    assert constraint_of(CompletionRequest, structured_outputs=None, guided_json=None) is None
    assert constraint_of(ChatRequest, response_format={"type": "text"}, guided_regex="a") is not None


def test_a_schema_that_is_absent_is_any_object() -> None:
    found = constraint_of(ChatRequest, response_format={"type": "json_schema", "json_schema": {"name": "n"}})

    assert found is not None
    assert json.loads(found.text) == {"type": "object"}


@pytest.mark.parametrize(
    ("kind", "fields", "param"),
    [
        (ChatRequest, {"response_format": {"type": "structural_tag"}}, "response_format"),
        (ChatRequest, {"response_format": {}}, "response_format"),
        (ChatRequest, {"response_format": "json"}, "response_format"),
        (ChatRequest, {"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            ChatRequest,
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
            "response_format.json_schema.name",
        ),
        (
            ChatRequest,
            {"response_format": {"type": "json_schema", "json_schema": {**_NAMED, "schema": []}}},
            "response_format.json_schema.schema",
        ),
        (
            ChatRequest,
            {"response_format": {"type": "json_schema", "json_schema": {**_NAMED, "extra": 1}}},
            "response_format.json_schema.extra",
        ),
        (ResponseRequest, {"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        (ResponseRequest, {"text": {"format": {"type": "json_object"}}, "guided_json": {}}, "guided_json"),
        (CompletionRequest, {"structured_outputs": {}}, "structured_outputs"),
        (CompletionRequest, {"structured_outputs": {"json_object": False}}, "structured_outputs"),
        (CompletionRequest, {"structured_outputs": {"json": {}, "regex": "a"}}, "structured_outputs"),
        (CompletionRequest, {"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        (CompletionRequest, {"structured_outputs": {"structural_tag": "{}"}}, "structured_outputs.structural_tag"),
        (
            CompletionRequest,
            {"structured_outputs": {"json": {}, "whitespace_pattern": " "}},
            "structured_outputs.whitespace_pattern",
        ),
        (CompletionRequest, {"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        (CompletionRequest, {"structured_outputs": {"regex": "a"}, "guided_regex": "a"}, "guided_regex"),
        (CompletionRequest, {"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex"),
        (CompletionRequest, {"guided_json": True}, "guided_json"),
        (CompletionRequest, {"structured_outputs": {"json": []}}, "structured_outputs.json"),
        (CompletionRequest, {"guided_decoding_backend": "x"}, "guided_decoding_backend"),
    ],
)
def test_what_is_wrong_or_given_twice_is_refused_by_name(
    kind: type[ChatRequest | CompletionRequest | ResponseRequest], fields: dict[str, object], param: str
) -> None:
    assert refused(kind, **fields) == param


def test_the_grammar_of_an_answer_is_a_part() -> None:
    request = CompletionRequest.parse_value({**_BODIES[CompletionRequest], "guided_regex": "a"})

    part = answer_part(request, {"guided_regex": Judged(part='{"lark_grammar":"start: /a/"}')})

    assert part == {"lark_grammar": "start: /a/"}
    assert answer_part(CompletionRequest.parse_value(_BODIES[CompletionRequest]), {}) is None


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ({}, {"type": "text"}),
        ({"text": {"verbosity": "medium"}}, {"type": "text"}),
        ({"text": {"format": {"type": "json_object"}}}, {"type": "json_object"}),
        ({"text": {"format": {"type": "json_schema", **_NAMED}}}, {"type": "json_schema", **_NAMED}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": _SCHEMA, "strict": None}}},
            {"type": "json_schema", **_NAMED, "strict": False},
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "description": "d"}}},
            {"type": "json_schema", "name": "n", "description": "d", "schema": {"type": "object"}, "strict": False},
        ),
        ({"guided_regex": "a"}, {"type": "text"}),
    ],
)
def test_a_response_shows_the_format_as_it_was_sent(sent: dict[str, object], shown: dict[str, object]) -> None:
    assert echoed_format(sent) == shown
