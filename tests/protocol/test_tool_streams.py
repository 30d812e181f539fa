"""Tool calls in streams and objects, as the unmodified SDK reads them: every family, cut anywhere."""

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any, cast

import openai
import pydantic
import pytest
from msgspec import structs
from openai import pydantic_function_tool
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from api.protocol.answer.outcome import entries_of
from api.protocol.answer.segments import ParserStart
from api.protocol.kinds import object_of
from storage.contract import FinishReason, JobHeader, JobKind, JobStatus, LogEntry, Result
from tests.protocol.examples import end, event, header, payloads, start, tokens
from tests.protocol.test_openai_sdk import Server, client_of, frames_of

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
FLAT = [
    {"type": "function", "name": "weather", "parameters": SCHEMA},
    {"type": "function", "name": "clock"},
    {"type": "custom", "name": "shell"},
    {"type": "namespace", "name": "crm", "tools": [{"type": "function", "name": "find"}]},
]
NESTED = [
    {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "clock"}},
    {"type": "custom", "custom": {"name": "shell"}},
]
ASKED: Any = [{"role": "user", "content": "Oslo?"}]
HERMES = (
    'I look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}\n</tool_call>\n'
    '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
)
# The same text and calls as families write them.
WRITTEN = {
    "hermes": HERMES,
    "generic": HERMES,
    "qwen3_coder": (
        "I look.\n<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n"
        "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=clock>\n</function>\n</tool_call>"
    ),
    "mistral": (
        'I look.[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}, '
        '{"name": "clock", "arguments": {}}]'
    ),
    "deepseek_v3": (
        "I look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
        '{"city": "Oslo", "days": 2}\n```<｜tool▁call▁end｜>\n'
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>clock\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "kimi_k2": (
        "I look.<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>"
        '{"city": "Oslo", "days": 2}<|tool_call_end|><|tool_call_begin|>functions.clock:1<|tool_call_argument_begin|>{}'
        "<|tool_call_end|><|tool_calls_section_end|>"
    ),
    "lfm2": 'I look.<|tool_call_start|>[weather(city="Oslo", days=2), clock()]<|tool_call_end|>',
}
CUTS: list[int | None] = [None, 1, 2, 7]


def job_of(kind: JobKind, family: str = "hermes", job_id: str | None = None) -> JobHeader:
    """A job with tools, read as this family writes."""
    context = ParserStart(name=family, reads_calls=True).stored | {"strict_functions": [False, True, False]}
    made = header(kind, {"tools": FLAT if kind is JobKind.RESPONSE else NESTED}, context)
    return made if job_id is None else structs.replace(made, job_id=job_id)


def log_of(output: str, size: int | None = None, finish: FinishReason = STOP) -> list[LogEntry]:
    """The log of an output in pieces of this size, None for one piece."""
    step = size or len(output)
    pieces = [output[at : at + step] for at in range(0, len(output), step)]
    events = [event(one) for one in pieces[:-1]] + [event(pieces[-1], finish=finish)]
    status = JobStatus.COMPLETED if finish is STOP else JobStatus.INCOMPLETE
    return [start(), *(tokens(number, one) for number, one in enumerate(events, 1)), end(len(events) + 1, status)]


def chat_of(output: str, family: str = "hermes", finish: FinishReason = STOP) -> dict[str, Any]:
    """The only choice of the chat completion."""
    found = cast(dict[str, Any], object_of(job_of(JobKind.CHAT, family), log_of(output, finish=finish)))
    return cast(dict[str, Any], found["choices"][0])


def response_of(output: str, finish: FinishReason = STOP) -> dict[str, Any]:
    return cast(dict[str, Any], object_of(job_of(JobKind.RESPONSE), log_of(output, finish=finish)))


def deltas_of(output: str, size: int | None, family: str = "hermes") -> list[dict[str, Any]]:
    frames = frames_of(job_of(JobKind.CHAT, family), log_of(output, size))
    chunks = cast(list[dict[str, Any]], payloads(frames))
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize("family", WRITTEN)
def test_a_chat_stream_of_calls_is_the_answer(family: str, size: int | None) -> None:
    """N01, N02: joined by index, by id, and by the SDK's helper."""
    choice = chat_of(WRITTEN[family], family)
    calls = choice["message"]["tool_calls"]
    deltas = deltas_of(WRITTEN[family], size, family)
    pieces = [call for delta in deltas for call in delta.get("tool_calls", ())]

    by_index: dict[int, str] = {}
    for piece in pieces:
        by_index[piece["index"]] = by_index.get(piece["index"], "") + piece["function"]["arguments"]
        is_first = "id" in piece
        assert set(piece) == ({"index", "id", "type", "function"} if is_first else {"index", "function"})
        assert set(piece["function"]) == ({"name", "arguments"} if is_first else {"arguments"})
        assert (piece["function"]["arguments"] == "") == is_first
    server = Server(job_of(JobKind.CHAT, family), log_of(WRITTEN[family], size))
    with client_of(server).chat.completions.stream(model="demo", messages=ASKED) as stream:
        final = stream.get_final_completion().choices[0]

    assert choice["finish_reason"] == final.finish_reason == "tool_calls"
    assert list(by_index) == [0, 1]
    assert list(by_index.values()) == [call["function"]["arguments"] for call in calls]
    assert [json.loads(arguments) for arguments in by_index.values()] == [{"city": "Oslo", "days": 2}, {}]
    assert (
        "".join(delta.get("content") or "" for delta in deltas) == choice["message"]["content"] == final.message.content
    )
    assert choice["message"]["content"].strip() == "I look."
    assert final.message.tool_calls is not None
    assert [
        call.model_dump(include={"id", "type", "function"}, exclude={"function": {"parsed_arguments"}})
        for call in final.message.tool_calls
    ] == calls


@pytest.mark.parametrize("size", CUTS)
@pytest.mark.parametrize("family", WRITTEN)
def test_a_response_stream_of_calls_is_the_answer(family: str, size: int | None) -> None:
    job, log = job_of(JobKind.RESPONSE, family), log_of(WRITTEN[family], size)
    events = cast(list[dict[str, Any]], payloads(frames_of(job, log)))
    whole = cast(dict[str, Any], object_of(job, log))

    event_type: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
    assert all(event_type.validate_python(one).type == one["type"] for one in events)
    with client_of(Server(job, log)).responses.stream(model="demo", input="Oslo?") as stream:
        final = stream.get_final_response() if list(stream) else None

    assert final is not None
    assert [item["type"] for item in whole["output"]] == ["message", "function_call", "function_call"]
    assert [item.model_dump(exclude_unset=True, exclude={"parsed_arguments"}) for item in final.output[1:]] == whole[
        "output"
    ][1:]
    opened = [one["item"] for one in events if one["type"] == "response.output_item.added"]
    done = [one["item"] for one in events if one["type"] == "response.output_item.done"]
    assert done == whole["output"]
    assert [(item["id"], item.get("call_id")) for item in opened] == [
        (item["id"], item.get("call_id")) for item in done
    ]
    assert [item["arguments"] for item in opened[1:]] == ["", ""]
    for item in done[1:]:
        assert item["id"].startswith("fc_")
        assert item["call_id"].startswith("call_")
        assert len(item["call_id"]) == len("call_") + 24
        of_item = [one for one in events if one.get("item_id") == item["id"]]
        assert "".join(one["delta"] for one in of_item[:-1]) == item["arguments"] == of_item[-1]["arguments"]


def test_each_item_is_closed_before_the_next_is_opened() -> None:
    events = cast(list[dict[str, Any]], payloads(frames_of(job_of(JobKind.RESPONSE), log_of(HERMES, 5))))

    moments = [one for one in events if one["type"].startswith("response.output_item.")]
    assert [one["output_index"] for one in moments] == [0, 0, 1, 1, 2, 2]
    assert [one["type"].rpartition(".")[2] for one in moments] == ["added", "done"] * 3


def test_ids_are_the_same_in_every_replay_and_of_one_job_alone() -> None:
    log = log_of(HERMES, 3)
    again = list(entries_of(Result(entries=tuple(entry.tokens for entry in log if entry.tokens)), log[-1].end))
    job, other = job_of(JobKind.RESPONSE), job_of(JobKind.RESPONSE, job_id="resp_" + "0" * 31 + "2")

    assert frames_of(job, log) == frames_of(job, again)
    ids = [item["call_id"] for one in (job, other) for item in cast(dict[str, Any], object_of(one, log))["output"][1:]]
    assert len(set(ids)) == 4


def test_choices_have_calls_of_their_own_ids() -> None:
    context = ParserStart(name="hermes", reads_calls=True).stored
    job = header(JobKind.CHAT, {"n": 2, "tools": NESTED}, context)
    events = [event(HERMES, choice=choice, finish=STOP) for choice in (0, 1)]

    choices = cast(dict[str, Any], object_of(job, [start(), tokens(1, *events), end(2)]))["choices"]

    ids = [call["id"] for choice in choices for call in choice["message"]["tool_calls"]]
    assert len(set(ids)) == 4


CUSTOM = "<tool_call>\n<custom=shell>\nls | wc -l\n</custom>\n</tool_call>"


@pytest.mark.parametrize("size", CUTS)
def test_a_custom_call_streams_its_input(size: int | None) -> None:
    """The helper of the SDK knows no custom calls in Chat; the plain stream gives them as they are."""
    job = job_of(JobKind.RESPONSE)
    with client_of(Server(job, log_of(CUSTOM, size))).responses.stream(model="demo", input="x") as stream:
        final = stream.get_final_response() if list(stream) else None
    chat = client_of(Server(job_of(JobKind.CHAT), log_of(CUSTOM, size)))
    chunks = list(chat.chat.completions.create(model="demo", messages=ASKED, stream=True))
    whole = chat.chat.completions.create(model="demo", messages=ASKED).choices[0]

    assert final is not None
    (item,) = final.output
    assert item.type == "custom_tool_call"
    assert (item.name, item.input, item.id[:4]) == ("shell", "ls | wc -l", "ctc_")  # type: ignore[index] # it has one
    pieces = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    said = [cast(Any, piece).custom for piece in pieces]  # Any: the SDK has no class for it
    assert said[0] == {"name": "shell", "input": ""}
    assert "".join(one["input"] for one in said) == "ls | wc -l"
    assert whole.finish_reason == "tool_calls"
    assert whole.message.tool_calls is not None
    assert whole.message.tool_calls[0].type == "custom"
    assert whole.message.tool_calls[0].custom.input == "ls | wc -l"


class Weather(pydantic.BaseModel):
    """The arguments of a strict tool."""

    city: str


STRICT = pydantic_function_tool(Weather, name="weather")


def test_a_call_that_the_token_limit_cuts_says_length() -> None:
    """N03: the SDK raises for the length, and does not try to read half an object."""
    cut = '<tool_call>\n{"name": "weather", "arguments": {"city": "Os'
    server = Server(job_of(JobKind.CHAT), log_of(cut, 4, LENGTH))
    with (
        pytest.raises(openai.LengthFinishReasonError),
        client_of(server).chat.completions.stream(model="demo", messages=ASKED, tools=[STRICT]) as stream,
    ):
        list(stream)
    with pytest.raises(openai.LengthFinishReasonError):
        client_of(server).chat.completions.parse(model="demo", messages=ASKED, tools=[STRICT])

    assert chat_of(cut, finish=LENGTH)["finish_reason"] == "length"
    assert chat_of(cut, finish=LENGTH)["message"]["tool_calls"][0]["function"]["arguments"] == '{"city": "Os'
    response = response_of(cut, LENGTH)
    assert response["status"] == "incomplete"
    assert [(item["arguments"], item["status"]) for item in response["output"]] == [('{"city": "Os', "incomplete")]


@pytest.mark.parametrize(
    "cut", ["<tool_call>", '<tool_call>\n{"na', '<tool_call>\n{"name": "wea', '<tool_call>\n{"name": "weather']
)
def test_a_call_that_was_cut_before_its_name_is_complete_is_not_shown(cut: str) -> None:
    choice = chat_of(cut, finish=LENGTH)

    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "length"
    assert [item["type"] for item in response_of(cut, LENGTH)["output"]] in (["message"], [])


def test_a_call_without_arguments_has_an_empty_object() -> None:
    (call,) = chat_of('<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>')["message"]["tool_calls"]

    assert call["function"] == {"name": "clock", "arguments": "{}"}


def test_arguments_are_exactly_as_they_were_written() -> None:
    written = '{"city":"\\u004fslo \\"x\\"", "days" : 2}'

    output = f'<tool_call>\n{{"name": "weather", "arguments": {written}}}\n</tool_call>'
    (call,) = chat_of(output)["message"]["tool_calls"]

    assert call["function"]["arguments"] == written


def test_a_call_of_a_namespace_shows_it() -> None:
    output = '<tool_call>\n{"name": "crm.find", "arguments": {}}\n</tool_call>'

    (item,) = response_of(output)["output"]

    assert (item["name"], item["namespace"]) == ("find", "crm")


def test_a_text_before_a_call_is_commentary_and_is_not_parsed_into_a_format() -> None:
    class Answer(pydantic.BaseModel):
        value: int

    before = response_of(HERMES)["output"][0]
    alone = response_of("I look.")["output"][0]
    job = job_of(JobKind.RESPONSE)
    parsed = client_of(Server(job, log_of(HERMES))).responses.parse(model="demo", input="x")
    with client_of(Server(job, log_of(HERMES, 3))).responses.stream(model="demo", input="x") as stream:
        final = stream.get_final_response() if list(stream) else None

    assert before["phase"] == "commentary"
    assert "phase" not in alone
    assert final is not None
    assert parsed.output_text == final.output_text
    assert Answer(value=1).value == 1


def test_a_response_shows_its_tools_with_a_boolean_strict() -> None:
    shown = response_of("Hi.")

    assert [tool.get("strict") for tool in shown["tools"]] == [False, True, None, None]
    assert shown["tools"][3]["tools"][0]["strict"] is False
    assert shown["tools"][2]["format"] == {"type": "text"}
    assert shown["tool_choice"] == "auto"
    assert shown["parallel_tool_calls"] is True


def pairs(text: str) -> Iterable[tuple[int, int]]:
    return itertools.combinations(range(len(text) + 1), 2)


def test_no_two_cuts_of_an_output_change_anything() -> None:
    """N02, N05: each pair of places, in a marker, a name or an argument."""
    whole = chat_of(HERMES)

    for first, second in pairs(HERMES):
        pieces: Sequence[str] = [HERMES[:first], HERMES[first:second], HERMES[second:]]
        events = [event(one) for one in pieces[:2]] + [event(pieces[2], finish=STOP)]
        log = [start(), *(tokens(number, one) for number, one in enumerate(events, 1)), end(4)]
        found = cast(dict[str, Any], object_of(job_of(JobKind.CHAT), log))
        assert found["choices"][0] == whole, (first, second)
