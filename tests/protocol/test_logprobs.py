"""Log probabilities in each protocol's shapes, in objects and streams."""

from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from api.protocol.completions.request import CompletionRequest
from api.protocol.kinds import fold_of, object_of, prepare
from api.protocol.responses.included import INCLUDED_LOGPROBS
from api.protocol.responses.request import ResponseRequest
from api.protocol.responses.stored_items import previous_of
from storage.contract import MIN_LOGPROB, FinishReason, JobHeader, JobKind, JobStatus, LogEntry
from tests.protocol.examples import (
    GENERATION_KINDS,
    body,
    candidate,
    end,
    event,
    header,
    likely,
    measured,
    payloads,
    start,
    tokens,
    tools,
)

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH
# "Hé!" in four tokens, of which two are halves of a character, and the end of the sequence.
HEY = [
    start(),
    tokens(1, measured("H", likely("H", -0.25, candidate("H", -0.25), candidate("h", -2.0)))),
    tokens(2, measured("", likely(b"\xc3", -0.5, candidate(b"\xc3", -0.5), candidate("i", -1.5)))),
    tokens(3, measured("é", likely(b"\xa9", -0.125, candidate(b"\xa8", -0.0625), candidate(b"\xa9", -0.125)))),
    start(2),
    tokens(4, measured("", likely("!", MIN_LOGPROB, candidate("?", -0.75), candidate(b"", -1.0)))),
    tokens(5, measured("!", likely(b"", -0.375, candidate(b"", -0.375), candidate("!", -3.0)), finish=STOP)),
    end(6),
]
CHAT = header(JobKind.CHAT, {"logprobs": True, "top_logprobs": 2})
RESPONSE = header(JobKind.RESPONSE, {"include": [INCLUDED_LOGPROBS], "top_logprobs": 2})
COMPLETION = header(JobKind.COMPLETION, {"logprobs": 2})


def stream_of(job: JobHeader, log: list[LogEntry]) -> list[dict[str, Any]]:
    fold = fold_of(job)
    return payloads([*fold.open(), *(frame for entry in log for frame in fold.feed(entry))])


def token(text: str, logprob: float, data: list[int], *top: dict[str, object]) -> dict[str, object]:
    return {"token": text, "logprob": logprob, "bytes": data, "top_logprobs": list(top)}


def other(text: str, logprob: float, data: list[int]) -> dict[str, object]:
    return {"token": text, "logprob": logprob, "bytes": data}


HEY_TOKENS = [
    token("H", -0.25, [72], other("H", -0.25, [72]), other("h", -2.0, [104])),
    token("\ufffd", -0.5, [195], other("\ufffd", -0.5, [195]), other("i", -1.5, [105])),
    token("\ufffd", -0.125, [169], other("\ufffd", -0.0625, [168]), other("\ufffd", -0.125, [169])),
    token("!", -9999.0, [33], other("?", -0.75, [63]), other("", -1.0, [])),
]
HEY_PIECES = [("H", 0, 1), ("", 1, 2), ("é", 2, 3), ("", 3, 4), ("!", 4, 4)]


def test_a_chat_tells_every_token_but_the_end() -> None:
    shown: Any = object_of(CHAT, HEY)

    assert shown["choices"][0]["logprobs"] == {"content": HEY_TOKENS, "refusal": None}
    assert shown["choices"][0]["message"]["content"] == "Hé!"


def test_chunks_of_a_chat_tell_the_tokens_that_came_with_them() -> None:
    _, *deltas, last = [chunk["choices"][0] for chunk in stream_of(CHAT, HEY)]

    assert [(one["delta"]["content"], (one["logprobs"] or {"content": []})["content"]) for one in deltas] == [
        (text, HEY_TOKENS[first:behind]) for text, first, behind in HEY_PIECES
    ]
    assert [one["logprobs"] is None for one in deltas] == [False, False, False, False, True]
    assert (last["delta"], last["logprobs"], last["finish_reason"]) == ({}, None, "stop")


def test_a_response_tells_them_with_deltas_and_again_with_the_whole_text() -> None:
    events = stream_of(RESPONSE, HEY)

    deltas = [one for one in events if one["type"] == "response.output_text.delta"]
    assert [(one["delta"], one["logprobs"]) for one in deltas] == [
        (text, HEY_TOKENS[first:behind]) for text, first, behind in HEY_PIECES
    ]
    assert [one["sequence_number"] for one in events] == list(range(len(events)))
    text_done, part_done, item_done, completed = events[-4:]
    part = {"type": "output_text", "text": "Hé!", "annotations": [], "logprobs": HEY_TOKENS}
    assert (text_done["text"], text_done["logprobs"]) == ("Hé!", HEY_TOKENS)
    assert part_done["part"] == part
    assert item_done["item"]["content"] == [part]
    assert completed["response"]["output"] == [item_done["item"]]
    assert completed["response"]["top_logprobs"] == 2
    assert completed["response"] == object_of(RESPONSE, HEY)


HEY_LISTS = {
    "tokens": ["H", "\ufffd", "\ufffd", "!"],
    "token_logprobs": [-0.25, -0.5, -0.125, -9999.0],
    # Of tokens with the same text the most likely one is reported, and the chosen one always is.
    "top_logprobs": [
        {"H": -0.25, "h": -2.0},
        {"\ufffd": -0.5, "i": -1.5},
        {"\ufffd": -0.0625},
        {"?": -0.75, "": -1.0, "!": -9999.0},
    ],
    "text_offset": [0, 1, 1, 2],
}


def test_a_completion_tells_parallel_lists() -> None:
    shown: Any = object_of(COMPLETION, HEY)

    assert shown["choices"][0]["logprobs"] == HEY_LISTS


def test_chunks_of_a_completion_go_on_counting_characters() -> None:
    *chunks, last = [chunk["choices"][0] for chunk in stream_of(COMPLETION, HEY)]

    assert [one["text"] for one in chunks] == [text for text, _, _ in HEY_PIECES]
    assert added_up(chunks) == HEY_LISTS
    assert (last["logprobs"], last["finish_reason"]) == (None, "stop")


def added_up(chunks: list[Any]) -> dict[str, list[Any]]:
    lists: dict[str, list[Any]] = {}
    for chunk in chunks:
        for name, values in (chunk["logprobs"] or {}).items():
            lists.setdefault(name, []).extend(values)
    return lists


ECHO = header(
    JobKind.COMPLETION,
    {"logprobs": 1, "echo": True, "n": 2},
    {"num_prompts": 1, "prompt_texts": ["aéb"], "prompt_names": [[[0, "a"]]]},
)
PROMPT = (likely(b"\xc3", -1.0), likely(b"\xa9", -2.0, candidate("x", -0.5)), likely("b", -3.0))
ECHO_LOG = [
    start(),
    tokens(1, measured("c", likely("c", -0.5), choice=1, prompt=PROMPT)),
    tokens(
        2, measured("", likely("d", -0.25), prompt=PROMPT), measured("e", likely("e", -4.0), choice=1, finish=LENGTH)
    ),
    tokens(3, measured("df", likely("f", -0.75), finish=LENGTH)),
    end(4, JobStatus.INCOMPLETE),
]
PROMPT_TOP: list[object] = [None, {"\ufffd": -1.0}, {"x": -0.5, "\ufffd": -2.0}, {"b": -3.0}]


def test_an_echo_brings_the_prompts_tokens_the_first_without_a_probability() -> None:
    shown: Any = object_of(ECHO, ECHO_LOG)

    first, second = shown["choices"]
    assert (first["text"], second["text"]) == ("aébdf", "aébce")
    assert first["logprobs"] == {
        "tokens": ["a", "\ufffd", "\ufffd", "b", "d", "f"],
        "token_logprobs": [None, -1.0, -2.0, -3.0, -0.25, -0.75],
        "top_logprobs": [*PROMPT_TOP, {"d": -0.25}, {"f": -0.75}],
        "text_offset": [0, 1, 1, 2, 3, 4],
    }
    assert second["logprobs"]["tokens"] == ["a", "\ufffd", "\ufffd", "b", "c", "e"]


def test_a_streamed_echo_comes_with_its_choices_first_event() -> None:
    chunks = [chunk["choices"][0] for chunk in stream_of(ECHO, ECHO_LOG)]
    shown: Any = object_of(ECHO, ECHO_LOG)

    assert [(one["index"], one["text"], one["finish_reason"]) for one in chunks] == [
        (1, "aébc", None),
        (0, "aéb", None),
        (1, "e", None),
        (1, "", "length"),
        (0, "df", None),
        (0, "", "length"),
    ]
    for choice in (0, 1):
        assert added_up([one for one in chunks if one["index"] == choice]) == shown["choices"][choice]["logprobs"]


ECHOES = [
    # The tokenizer begins with a special token that is not of the text.
    ("hi", [[0, "<s>"]], ["h", "i"], ["<s>", "h", "i"], [0, 0, 1]),
    # Special tokens that were sent, as text or as ids.
    (
        "<s>a<|im_end|>b",
        [[0, "<s>"], [2, "<|im_end|>"]],
        ["a", "", "b"],
        ["<s>", "a", "<|im_end|>", "b"],
        [0, 3, 4, 14],
    ),
    # It begins in the middle of a character.
    (
        "🦊é!",
        [[0, "\ufffd"]],
        [b"\x9f\xa6", b"\x8a", "é", "!"],
        ["\ufffd", "\ufffd\ufffd", "\ufffd", "é", "!"],
        [0, 0, 0, 1, 2],
    ),
    # It has one token.
    ("hi", [[0, "hi"]], [], ["hi"], [0]),
]


@pytest.mark.parametrize(("text", "names", "log", "texts", "offsets"), ECHOES, ids=["bos", "special", "half", "one"])
def test_an_echoed_prompt_says_where_each_token_begins(
    text: str, names: list[object], log: list[str | bytes], texts: list[str], offsets: list[int]
) -> None:
    context = {"num_prompts": 1, "prompt_texts": [text], "prompt_names": [names]}
    job = header(JobKind.COMPLETION, {"logprobs": 1, "echo": True, "max_tokens": 1}, context)
    prompt = tuple(likely(data, -1.0, candidate(data, -1.0)) for data in log)
    read = measured("x", likely("x", -3.0), finish=LENGTH, prompt=prompt)

    shown: Any = object_of(job, [start(), tokens(1, read), end(2, JobStatus.INCOMPLETE)])

    choice = shown["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (text + "x", "length")
    assert choice["logprobs"]["tokens"] == [*texts, "x"]
    assert choice["logprobs"]["text_offset"] == [*offsets, len(text)]
    assert choice["logprobs"]["top_logprobs"][1:] == [*({one: -1.0} for one in texts[1:]), {"x": -3.0}]


def test_texts_that_the_log_lacks_are_taken_from_the_prompt() -> None:
    ids = tools().encode("<s>a<|im_end|>", add_special_tokens=False)
    request = CompletionRequest.parse(body(prompt=[list(ids), list(ids[1:])], echo=True, logprobs=0))

    context = prepare(request, tools(), seed=1).context

    assert context["prompt_names"] == [[[0, "<s>"], [2, "<|im_end|>"]], [[0, "a"], [1, "<|im_end|>"]]]


@pytest.mark.parametrize("job", [CHAT, RESPONSE, COMPLETION], ids=GENERATION_KINDS)
def test_a_stop_token_id_is_no_content(job: JobHeader) -> None:
    request = {**job.request, "stop_token_ids": [9]}
    stopped = header(job.kind, request)
    log = [
        start(),
        tokens(1, measured("x", likely("x", -1.0, token_id=9))),
        tokens(2, measured("", likely("y", -1.0, token_id=9), finish=STOP)),
        end(3),
    ]

    assert "'x'" in str(object_of(stopped, log))
    assert "'y'" not in str([object_of(stopped, log), *stream_of(stopped, log)])
    assert "'y'" in str(object_of(job, log))


def test_every_shape_is_the_specifications() -> None:
    event_type: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)

    for payload in stream_of(RESPONSE, HEY):
        assert event_type.validate_python(payload).type == payload["type"]
    for payload in stream_of(CHAT, HEY):
        assert not ChatCompletionChunk.model_validate(payload, strict=True).model_extra
    Response.model_validate(object_of(RESPONSE, HEY), strict=True)
    ChatCompletion.model_validate(object_of(CHAT, HEY), strict=True)
    Completion.model_validate(object_of(COMPLETION, HEY), strict=True)


@pytest.mark.parametrize("kind", GENERATION_KINDS)
def test_what_was_not_asked_for_is_not_reported(kind: JobKind) -> None:
    silent = header(kind)

    assert "-0.25" not in str([object_of(silent, HEY), *stream_of(silent, HEY)])


@pytest.mark.parametrize(
    ("job", "empty"),
    [
        (CHAT, {"content": [], "refusal": None}),
        (COMPLETION, {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}),
    ],
    ids=["chat", "completion"],
)
def test_a_job_without_tokens_yet_tells_that_there_are_none(job: JobHeader, empty: dict[str, object]) -> None:
    shown: Any = object_of(job, [start()])

    assert shown["choices"][0]["logprobs"] == empty


CHOSEN = header(
    JobKind.COMPLETION, {"n": 2, "best_of": 3, "echo": True}, {"num_prompts": 2, "prompt_texts": ["p", "q"]}
)
MADE = [
    start(),
    tokens(1, *(measured("a", likely("a", -1.0), choice=choice) for choice in range(6))),
    # Means of each prompt's three: -1.5, -1.0, -0.75 by length, and -1, -1, -2 where the first wins a tie.
    tokens(
        2,
        measured("b", likely("b", -2.0), choice=0, finish=LENGTH),
        measured("", likely(b"", -1.0), choice=1, finish=STOP),
        measured("c", likely("c", -0.5), choice=2, finish=LENGTH),
        measured("d", likely("d", -1.0), choice=3, finish=LENGTH),
        measured("e", likely("e", -1.0), choice=4, finish=LENGTH),
        measured("f", likely("f", -3.0), choice=5, finish=LENGTH),
    ),
]


def test_the_best_of_each_prompts_choices_are_shown_the_best_first() -> None:
    shown: Any = object_of(CHOSEN, [*MADE, end(3, JobStatus.INCOMPLETE)])

    assert [(one["index"], one["text"], one["finish_reason"]) for one in shown["choices"]] == [
        (0, "pac", "length"),
        (1, "pa", "stop"),
        (2, "qad", "length"),
        (3, "qae", "length"),
    ]
    assert {one["logprobs"] for one in shown["choices"]} == {None}
    assert shown["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("log", [MADE, [*MADE, end(3, JobStatus.CANCELLED)]], ids=["running", "cancelled"])
def test_no_choice_is_shown_before_the_best_are_known(log: list[LogEntry]) -> None:
    assert object_of(CHOSEN, log)["choices"] == []


def test_the_chosen_tell_their_log_probabilities_when_asked() -> None:
    job = header(JobKind.COMPLETION, {"best_of": 2, "logprobs": 0})
    log = [
        start(),
        tokens(1, event("a", finish=LENGTH), measured("b", likely("b", -5.0), choice=1, finish=LENGTH)),
        end(2, JobStatus.INCOMPLETE),
    ]

    shown: Any = object_of(job, log)

    assert [(one["text"], one["logprobs"]["tokens"]) for one in shown["choices"]] == [("b", ["b"])]


def test_the_next_turn_does_not_drag_them_along() -> None:
    answer = object_of(RESPONSE, HEY)
    previous = previous_of([], RESPONSE, answer)

    second = prepare(ResponseRequest.parse(body(input="more")), tools(), previous=previous, seed=1)

    kept: Any = second.context["previous_output"]
    assert kept[0]["content"] == [{"type": "output_text", "text": "Hé!", "annotations": [], "logprobs": []}]
