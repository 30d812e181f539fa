"""What a body may say, and how a wrong one is refused."""

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.protocol.chat.request import ChatRequest, MetadataUpdate
from api.protocol.completions.request import CompletionRequest
from api.protocol.responses.input_items import InputMessage
from api.protocol.responses.request import InputTokensRequest, ResponseRequest
from api.protocol.shared.content import text_of
from api.protocol.shared.wire import WireRequest
from storage.errors import InvalidRequest, UnsupportedParameter
from tests.protocol.examples import body

USER = {"role": "user", "content": "hi"}
MINIMAL: dict[type[WireRequest], dict[str, object]] = {
    ResponseRequest: {"input": "hi"},
    ChatRequest: {"messages": [USER]},
    CompletionRequest: {"prompt": "hi"},
}
REQUESTS = list(MINIMAL)
HOSTILE = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"3",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"[" * 900 + b"]" * 900,
    b'{"model":"demo","input":NaN}',
    b'{"model":"demo","temperature":NaN,"input":"x"}',
    b'{"model":"demo","temperature":Infinity,"input":"x"}',
    b'{"model":"demo","temperature":1e999,"input":"x"}',
    b'{"model":"demo","max_output_tokens":1e999,"input":"x"}',
    b'{"model":"demo","max_output_tokens":' + b"9" * 4000 + b',"input":"x"}',
    b'{"model":"demo","max_output_tokens":' + b"9" * 5000 + b',"input":"x"}',
    b'{"model":"demo","input":"\\ud800"}',
    b'{"model":"demo","input":"\\udc00\\ud800"}',
    b'{"model":"demo","input":"\xed\xa0\x80"}',
    b'{"model":"demo","\\ud800":1,"input":"x"}',
    b'{"model":"demo","input":' + b'[{"role":"user","content":' * 150 + b'"x"' + b"}]" * 150 + b"}",
    b'{"model":"demo","tools":' + b"[" * 900 + b"]" * 900 + b',"input":"x"}',
    b'{"model":"de\\u0000mo","input":"x"}',
    b'{"model":"demo","input":"x","metadata":{"a\\u0000":"b"}}',
    b'{"model":"demo","input":"x"}{"model":"demo"}',
]


@pytest.mark.parametrize("request_type", [*REQUESTS, InputTokensRequest, MetadataUpdate])
@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda raw: raw[:30].decode("latin-1"))
def test_a_hostile_body_is_refused_as_invalid(request_type: type[WireRequest], hostile: bytes) -> None:
    with pytest.raises(InvalidRequest):
        request_type.parse(hostile)


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["type", "role", "content", "text", "format"]) | st.text(max_size=3), inner)
    ),
    max_leaves=12,
)
_NAMES = st.sampled_from(sorted({name for one in REQUESTS for name in one.model_fields}))
_BODIES = st.dictionaries(_NAMES | st.text(max_size=4), _VALUES, max_size=6).map(
    lambda value: json.dumps(value).encode()
)


@given(raw=st.binary(max_size=60) | _BODIES)
@pytest.mark.parametrize("request_type", REQUESTS)
def test_no_body_raises_anything_but_a_refusal(request_type: type[WireRequest], raw: bytes) -> None:
    try:
        request_type.parse(raw)
    except InvalidRequest as refusal:
        json.dumps([refusal.message, refusal.param]).encode()


@given(name=_NAMES, value=_VALUES)
@pytest.mark.parametrize("request_type", REQUESTS)
def test_no_value_of_a_field_raises_anything_but_a_refusal_that_names_it(
    request_type: type[WireRequest], name: str, value: object
) -> None:
    raw = body(**{**MINIMAL[request_type], name: value})
    is_json = not any(word in raw for word in (b"Infinity", b"NaN", b"\\ud"))

    param: str | None = name
    try:
        request_type.parse(raw)
    except InvalidRequest as refusal:
        param = refusal.param

    assert not is_json or re.split(r"[.\[]", param or "")[0] == name


@pytest.mark.parametrize("request_type", REQUESTS)
def test_an_unknown_field_is_named(request_type: type[WireRequest]) -> None:
    with pytest.raises(UnsupportedParameter) as refusal:
        request_type.parse(body(**MINIMAL[request_type], colour="red"))

    assert refusal.value.param == "colour"


@pytest.mark.parametrize("request_type", REQUESTS)
def test_nulls_equal_absence(request_type: type[WireRequest]) -> None:
    nulls = {name: None for name in request_type.model_fields if name not in MINIMAL[request_type]}

    request = request_type.parse(body(**{**nulls, "model": "demo"}, **MINIMAL[request_type]))

    assert request.sent == {"model": "demo", **MINIMAL[request_type]}


def test_a_long_field_name_is_not_repeated_at_length() -> None:
    with pytest.raises(UnsupportedParameter) as refusal:
        ChatRequest.parse(body(messages=[USER], **{"x" * 100_000: 1}))

    assert len(refusal.value.message) < 500


UNSUPPORTED: list[tuple[type[WireRequest], dict[str, object], str]] = [
    (ResponseRequest, {"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
    (ResponseRequest, {"input": [{"type": "program", "call_id": "c"}]}, "input[0].type"),
    (ResponseRequest, {"input": [{"type": "tool_search_call", "arguments": {}}]}, "input[0].type"),
    (
        ResponseRequest,
        {"input": [{"type": "function_call", "call_id": "c", "name": "f", "caller": {"type": "program"}}]},
        "input[0].caller",
    ),
    (
        ResponseRequest,
        {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image"}]}]},
        "input[0].output[0].type",
    ),
    (ResponseRequest, {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
    (ResponseRequest, {"input": "x", "text": {"format": {"type": "grammar"}}}, "text.format"),
    (ResponseRequest, {"input": "x", "text": {"verbosity": "low"}}, "text.verbosity"),
    (ResponseRequest, {"input": "x", "reasoning": {"summary": "detailed"}}, "reasoning.summary"),
    (ResponseRequest, {"input": "x", "reasoning": {"mode": "pro"}}, "reasoning.mode"),
    (ResponseRequest, {"input": "x", "include": ["file_search_call.results"]}, "include[0]"),
    (ResponseRequest, {"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
    (ResponseRequest, {"input": "x", "tool_choice": {"type": "mcp"}}, "tool_choice.type"),
    (
        ResponseRequest,
        {"input": "x", "stream_options": {"include_obfuscation": True}},
        "stream_options.include_obfuscation",
    ),
    (ResponseRequest, {"input": "x", "max_tool_calls": 3}, "max_tool_calls"),
    (ChatRequest, {"messages": [{"role": "function", "content": "x", "name": "c"}]}, "messages[0].role"),
    (
        ChatRequest,
        {"messages": [{"role": "tool", "content": [{"type": "image_url"}], "tool_call_id": "c"}]},
        "messages[0].content[0].type",
    ),
    (ChatRequest, {"messages": [{**USER, "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
    (ChatRequest, {"messages": [{**USER, "colour": 1}]}, "messages[0].colour"),
    (ChatRequest, {"messages": [USER], "response_format": {"type": "structural_tag"}}, "response_format"),
    (ChatRequest, {"messages": [USER], "modalities": ["text", "audio"]}, "modalities"),
    (ChatRequest, {"messages": [USER], "chat_template_kwargs": {"tools": 1}}, "chat_template_kwargs.tools"),
    (CompletionRequest, {"prompt": "x", "suffix": "y"}, "suffix"),
]


@pytest.mark.parametrize(("request_type", "fields", "param"), UNSUPPORTED, ids=lambda value: str(value)[:60])
def test_what_is_not_supported_yet_is_named(
    request_type: type[WireRequest], fields: dict[str, object], param: str
) -> None:
    with pytest.raises(UnsupportedParameter) as refusal:
        request_type.parse(body(**fields))

    assert refusal.value.param == param


INVALID: list[tuple[type[WireRequest], dict[str, object], str]] = [
    (ResponseRequest, {}, "input"),
    (ResponseRequest, {"input": []}, "input"),
    (ResponseRequest, {"input": 5}, "input"),
    (ResponseRequest, {"input": ["x"]}, "input[0]"),
    (ResponseRequest, {"input": [{"role": "user"}]}, "input[0].content"),
    (ResponseRequest, {"input": [{"role": "pope", "content": "x"}]}, "input[0].role"),
    (ResponseRequest, {"input": "x", "metadata": {"k": 1}}, "metadata.k"),
    (ResponseRequest, {"input": "x", "metadata": {"k" * 65: "v"}}, "metadata." + "k" * 65),
    (ResponseRequest, {"input": "x", "metadata": {"k": "v" * 513}}, "metadata.k"),
    (ResponseRequest, {"input": "x", "metadata": {str(i): "v" for i in range(17)}}, "metadata"),
    (ResponseRequest, {"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
    (ResponseRequest, {"input": "x", "truncation": "maybe"}, "truncation"),
    (ResponseRequest, {"input": "x", "service_tier": "golden"}, "service_tier"),
    (ChatRequest, {"messages": [USER], "service_tier": 1}, "service_tier"),
    (CompletionRequest, {"prompt": "x", "service_tier": ""}, "service_tier"),
    (ResponseRequest, {"input": "x", "top_k": -2}, "top_k"),
    (ResponseRequest, {"input": "x", "background": "yes"}, "background"),
    (ChatRequest, {"messages": []}, "messages"),
    (ChatRequest, {"messages": [{"role": "user"}]}, "messages[0].content"),
    (ChatRequest, {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    (ChatRequest, {"messages": [USER], "temperature": 2.1}, "temperature"),
    (ChatRequest, {"messages": [USER], "temperature": "1"}, "temperature"),
    (ChatRequest, {"messages": [USER], "temperature": True}, "temperature"),
    (ChatRequest, {"messages": [USER], "top_p": -0.1}, "top_p"),
    (ChatRequest, {"messages": [USER], "n": 9}, "n"),
    (ChatRequest, {"messages": [USER], "n": 1.0}, "n"),
    (ChatRequest, {"messages": [USER], "stop": ["a", "b", "c", "d", "e"]}, "stop"),
    (ChatRequest, {"messages": [USER], "stop": ""}, "stop[0]"),
    (ChatRequest, {"messages": [USER], "seed": 2**63}, "seed"),
    (ChatRequest, {"messages": [USER], "max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
    (CompletionRequest, {}, "prompt"),
    (CompletionRequest, {"prompt": []}, "prompt"),
    (CompletionRequest, {"prompt": {}}, "prompt"),
    (CompletionRequest, {"prompt": [1, "x"]}, "prompt[1]"),
    (CompletionRequest, {"prompt": [1, -1]}, "prompt[1]"),
    (CompletionRequest, {"prompt": [True]}, "prompt[0]"),
    (CompletionRequest, {"prompt": [[1], []]}, "prompt[1]"),
    (CompletionRequest, {"prompt": ["x"] * 17, "n": 8}, "n"),
    (CompletionRequest, {"prompt": ["x"] * 129}, "prompt"),
    (MetadataUpdate, {}, "metadata"),
]


@pytest.mark.parametrize(("request_type", "fields", "param"), INVALID, ids=lambda value: str(value)[:60])
def test_what_breaks_a_limit_is_named(request_type: type[WireRequest], fields: dict[str, object], param: str) -> None:
    raw = json.dumps(fields).encode() if request_type is MetadataUpdate else body(**fields)

    with pytest.raises(InvalidRequest) as refusal:
        request_type.parse(raw)

    assert not isinstance(refusal.value, UnsupportedParameter)
    assert refusal.value.param == param


def test_a_missing_model_is_named() -> None:
    with pytest.raises(InvalidRequest, match="Missing required parameter: 'model'") as refusal:
        ChatRequest.parse(json.dumps({"messages": [USER]}).encode())

    assert refusal.value.param == "model"


def test_defaults_that_a_careful_client_sends_are_accepted() -> None:
    defaults = {
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "logprobs": False,
        "top_logprobs": 0,
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "modalities": ["text"],
        "response_format": {"type": "text"},
        "service_tier": "auto",
        "stream_options": {"include_usage": True, "include_obfuscation": False},
        "stop": "x",
        "seed": -(2**63),
    }

    request = ChatRequest.parse(body(messages=[USER], **defaults))

    assert request.stop == ["x"]
    assert request.sent == {"model": "demo", "messages": [USER], **defaults}


def test_our_own_output_is_accepted_as_input() -> None:
    answer: dict[str, object] = {
        "role": "assistant",
        "content": "hello",
        "refusal": None,
        "annotations": [],
        "tool_calls": None,
    }
    item = {
        "id": "msg_1",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "phase": None,
        "content": [
            {
                "type": "output_text",
                "text": "hello",
                "annotations": [],
                "logprobs": [{"token": "hello", "logprob": -0.5, "bytes": [], "top_logprobs": []}],
            }
        ],
    }

    chat = ChatRequest.parse(body(messages=[USER, answer]))
    response = ResponseRequest.parse(body(input=[USER, item]))

    assert [message.text for message in chat.messages] == ["hi", "hello"]
    assert isinstance(response.input, list)
    messages = [item for item in response.input if isinstance(item, InputMessage)]
    assert [text_of(message.content) for message in messages] == ["hi", "hello"]


def test_a_repeated_name_means_its_last_value() -> None:
    request = ChatRequest.parse(b'{"model":"a","model":"b","messages":[{"role":"user","content":"x"}]}')

    assert request.model == "b"
    assert request.sent["model"] == "b"


MANY_NAMES: list[tuple[type[WireRequest], bytes, str]] = [
    (ChatRequest, b'{"model":"m","messages":[' + b"1," * 10**6 + b"1]}", "messages[0]"),
    (
        ChatRequest,
        b'{"model":"m","messages":[{"role":"user","content":[' + b"{}," * 10**6 + b"1]}]}",
        "messages[0].content[0].type",
    ),
    (ResponseRequest, b'{"model":"m","input":[' + b"{}," * 10**6 + b"1]}", "input[0].role"),
    (CompletionRequest, b'{"model":"m","prompt":[1,' + b'"",' * 10**6 + b"1]}", "prompt[1]"),
    (CompletionRequest, json.dumps({str(number): 1 for number in range(10**5)}).encode(), "0"),
    (ChatRequest, body(messages=[USER], metadata={str(number): 1 for number in range(10**5)}), "metadata"),
    (ChatRequest, body(messages=[USER], logit_bias={str(number): "x" for number in range(10**5)}), "logit_bias"),
    (ChatRequest, body(messages=[USER], stop_token_ids=["x"] * 10**6), "stop_token_ids[0]"),
    (ResponseRequest, body(input="x", include=["x"] * 10**6), "include[0]"),
]


@pytest.mark.parametrize(("request_type", "raw", "param"), MANY_NAMES, ids=lambda value: str(value)[:40])
def test_a_million_faults_cost_no_more_than_the_first(request_type: type[WireRequest], raw: bytes, param: str) -> None:
    began = time.process_time()

    with pytest.raises(InvalidRequest) as refusal:
        request_type.parse(raw)

    assert refusal.value.param == param
    assert time.process_time() - began < 2
