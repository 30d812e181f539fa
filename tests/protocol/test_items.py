"""Items above the log: reasoning, text and tool calls are the same in streams, replays and stored objects."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from api.protocol.answer.outcome import entries_of
from api.protocol.answer.segments import ParserStart
from api.protocol.families import stored_parser
from api.protocol.kinds import fold_of, object_of
from storage.contract import FinishReason, JobHeader, JobKind, JobStatus, LogEntry, Result, TokenEvent
from storage.errors import ModelUnavailable
from tests.protocol.examples import end, event, header, payloads, start, tokens
from tests.protocol.marked_output import NAME, MarkedOutput
from tests.protocol.test_openai_sdk import Server, client_of

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH
OUTPUT = '<think>Hm.</think>Let me look.<call:find>{"q":1}</call><custom:run>ls</call>'
CONTEXT = ParserStart(name=NAME).stored

_words = st.text("ab<{}:/ ", min_size=1, max_size=5)
_parts = st.one_of(
    _words,
    _words.map("<think>{}</think>".format),
    _words.map("<call:find>{}</call>".format),
    st.just("<call:find></call>"),
    _words.map("<custom:run>{}</call>".format),
    st.sampled_from(["<think>", "</think>", "<call:find>", "</call>", "<thi", "<call:"]),
)
_outputs = st.lists(_parts, max_size=5).map("".join)
_cuts = st.lists(st.integers(0, 80), max_size=8)


@pytest.fixture(autouse=True, scope="module")
def marked() -> Iterator[None]:
    """The parser of tests beside the platform's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cast(dict[str, object], stored_parser.PARSERS), NAME, MarkedOutput)
        yield


def pieces_of(output: str, cuts: Iterable[int]) -> list[str]:
    places = sorted({0, len(output), *(cut for cut in cuts if cut < len(output))})
    return [output[low:high] for low, high in itertools.pairwise(places)]


def log_of(output: str, cuts: Iterable[int], finish: FinishReason | None, status: JobStatus) -> list[LogEntry]:
    texts = pieces_of(output, cuts) or [""]
    events = [event(text, finish=finish if index == len(texts) - 1 else None) for index, text in enumerate(texts)]
    return [start(), *(tokens(index, one) for index, one in enumerate(events, 1)), end(len(events) + 1, status)]


def frames_of(job: JobHeader, log: Iterable[LogEntry]) -> list[bytes]:
    fold = fold_of(job)
    return [*fold.open(), *(frame for entry in log for frame in fold.feed(entry))]


def replayed(log: list[LogEntry]) -> list[LogEntry]:
    return list(entries_of(Result(entries=tuple(entry.tokens for entry in log if entry.tokens)), log[-1].end))


def message_of(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client of the chat stream puts together."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": []}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        delta = choice["delta"]
        message["content"] += delta.get("content", "")
        message["reasoning_content"] += delta.get("reasoning_content", "")
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                assert call["index"] == len(message["tool_calls"])
                message["tool_calls"].append({name: value for name, value in call.items() if name != "index"})
            else:
                kind, field = ("custom", "input") if "custom" in call else ("function", "arguments")
                message["tool_calls"][call["index"]][kind][field] += call[kind][field]
        message["finish_reason"] = choice["finish_reason"]
    return message


@given(_outputs, _cuts, st.sampled_from([STOP, LENGTH, None]))
def test_a_chat_stream_adds_up_to_the_stored_message(output: str, cuts: list[int], finish: FinishReason | None) -> None:
    job = header(JobKind.CHAT, context=CONTEXT)
    log = log_of(output, cuts, finish, JobStatus.COMPLETED)

    streamed = message_of(cast(list[dict[str, Any]], payloads(frames_of(job, log))))
    choice = cast(dict[str, Any], object_of(job, log))["choices"][0]

    assert streamed["content"] == (choice["message"]["content"] or "")
    assert streamed["reasoning_content"] == choice["message"].get("reasoning_content", "")
    assert streamed["tool_calls"] == choice["message"].get("tool_calls", [])
    assert streamed["finish_reason"] == choice["finish_reason"]


@given(_outputs, _cuts, st.sampled_from([status for status in JobStatus if status.is_terminal]))
def test_a_response_stream_adds_up_to_the_stored_response(output: str, cuts: list[int], status: JobStatus) -> None:
    job = header(JobKind.RESPONSE, context=CONTEXT)
    log = log_of(output, cuts, None, status)

    events = cast(list[dict[str, Any]], payloads(frames_of(job, log)))
    done = [one for one in events if one["type"] == "response.output_item.done"]

    assert [one["sequence_number"] for one in events] == list(range(len(events)))
    assert [one["output_index"] for one in done] == list(range(len(done)))
    assert [one["item"] for one in done] == events[-1]["response"]["output"] == object_of(job, log)["output"]
    for item in events[-1]["response"]["output"]:
        assert joined_deltas(events, item["id"]) == text_of(item)


def joined_deltas(events: list[dict[str, Any]], item_id: str) -> str:
    deltas = (one["delta"] for one in events if one["type"].endswith(".delta") and one["item_id"] == item_id)
    return "".join(deltas)


def text_of(item: dict[str, Any]) -> str:
    if "content" in item:
        return "".join(part["text"] for part in item["content"])
    return str(item["input"] if "input" in item else item["arguments"])


@given(_outputs, _cuts, _cuts, st.sampled_from([JobKind.CHAT, JobKind.RESPONSE]))
def test_replays_are_equal_and_cuts_do_not_matter(
    output: str, cuts: list[int], other_cuts: list[int], kind: JobKind
) -> None:
    job = header(kind, context=CONTEXT)
    log = log_of(output, cuts, STOP, JobStatus.COMPLETED)

    assert frames_of(job, log) == frames_of(job, replayed(log))
    assert object_of(job, log) == object_of(job, log_of(output, other_cuts, STOP, JobStatus.COMPLETED))


@given(_outputs, _cuts, st.sampled_from([JobKind.CHAT, JobKind.RESPONSE]), st.booleans())
def test_the_parser_of_plain_text_gives_the_bytes_of_the_fast_path(
    output: str, cuts: list[int], kind: JobKind, is_plain_output: bool
) -> None:
    log = log_of(output if is_plain_output else "", cuts, STOP, JobStatus.COMPLETED)

    assert frames_of(header(kind, context=ParserStart(name="text").stored), log) == frames_of(header(kind), log)


def test_the_items_of_a_response_come_one_after_another() -> None:
    job = header(JobKind.RESPONSE, context=CONTEXT)

    events = cast(list[dict[str, Any]], payloads(frames_of(job, log_of(OUTPUT, [9], STOP, JobStatus.COMPLETED))))

    event_type: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
    assert all(event_type.validate_python(one).type == one["type"] for one in events)
    assert [one["type"].removeprefix("response.") for one in events[2:-1]] == [
        *("output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta"),
        *("reasoning_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.done"),
        *("content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"),
        *("output_item.added", "custom_tool_call_input.delta", "custom_tool_call_input.done", "output_item.done"),
    ]


def test_the_sdk_reads_reasoning_and_calls() -> None:
    response = header(JobKind.RESPONSE, context=CONTEXT)
    log = log_of(OUTPUT, range(80), STOP, JobStatus.COMPLETED)
    with client_of(Server(response, log)).responses.stream(model="demo", input="hi") as stream:
        final = stream.get_final_response() if list(stream) else None
    chat = header(JobKind.CHAT, context=CONTEXT)
    call_only = log_of('<call:find>{"q":1}</call>', range(80), STOP, JobStatus.COMPLETED)
    with client_of(Server(chat, call_only)).chat.completions.stream(
        model="demo", messages=[{"role": "user", "content": "hi"}]
    ) as chunks:
        choice = chunks.get_final_completion().choices[0]

    assert final is not None
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call", "custom_tool_call"]
    assert final.output_text == "Let me look."
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].function.arguments == '{"q":1}'


def test_a_call_that_the_token_limit_cuts_is_incomplete() -> None:
    log = log_of('<call:find>{"q"', [3], LENGTH, JobStatus.INCOMPLETE)

    response = cast(dict[str, Any], object_of(header(JobKind.RESPONSE, context=CONTEXT), log))
    chat = cast(dict[str, Any], object_of(header(JobKind.CHAT, context=CONTEXT), log))

    assert [(item["arguments"], item["status"]) for item in response["output"]] == [('{"q"', "incomplete")]
    assert chat["choices"][0]["finish_reason"] == "length"
    assert chat["choices"][0]["message"]["content"] is None


def test_the_state_at_the_first_token_is_the_jobs_own() -> None:
    context = ParserStart(name=NAME, state="think").stored
    log = log_of("Hm.</think>Yes.", [2], STOP, JobStatus.COMPLETED)

    message = cast(dict[str, Any], object_of(header(JobKind.CHAT, context=context), log))["choices"][0]["message"]

    assert (message["reasoning_content"], message["content"]) == ("Hm.", "Yes.")


def test_every_choice_has_a_state_of_its_own() -> None:
    job = header(JobKind.CHAT, {"n": 2}, CONTEXT)
    first, second = event("<think>a", choice=0), event("b", choice=1)
    rest = event("</think>c", choice=0, finish=STOP), event("d", choice=1, finish=STOP)

    shown = cast(dict[str, Any], object_of(job, [tokens(1, first, second), tokens(2, *rest), end(3)]))

    messages = [choice["message"] for choice in shown["choices"]]
    assert [message["content"] for message in messages] == ["c", "bd"]
    assert messages[0]["reasoning_content"] == "a"
    assert "reasoning_content" not in messages[1]


def test_a_parser_of_a_newer_version_can_be_tried_again() -> None:
    job = header(JobKind.CHAT, context=ParserStart(name="of-tomorrow").stored)

    with pytest.raises(ModelUnavailable):
        object_of(job, [tokens(1, TokenEvent(choice=0, token_ids=(1,), text="x"))])
