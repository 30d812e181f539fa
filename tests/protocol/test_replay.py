"""Every stream is a replay: attempts, the row and the point of resumption change no byte."""

import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.protocol.answer.outcome import entries_of
from api.protocol.kinds import fold_of, object_of
from api.protocol.responses.included import INCLUDED_LOGPROBS
from storage.contract import (
    MIN_LOGPROB,
    EntryKind,
    FinishReason,
    JobHeader,
    JobKind,
    JobStatus,
    LogEntry,
    Result,
    TokenEvent,
    TokenLogprobs,
)
from tests.protocol.examples import GENERATION_KINDS, candidate, end, event, header, measured, payloads, start, tokens

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["\u2028", "\x85", "\r\n", '"', "\\", "\x00", "😀", "", "data: [DONE]\n\n"]
)
_STATUSES = st.sampled_from([status for status in JobStatus if status.is_terminal])
_HEADERS = st.sampled_from(
    [
        header(JobKind.RESPONSE),
        header(JobKind.RESPONSE, {"store": False, "metadata": {"k": "v"}}, background=True),
        header(JobKind.CHAT),
        header(JobKind.CHAT, {"n": 3, "stream_options": {"include_usage": True}}),
        header(JobKind.COMPLETION, {"n": 2, "echo": True}, {"num_prompts": 2, "prompt_texts": ["a", "b"]}),
        header(JobKind.COMPLETION),
        header(JobKind.RESPONSE, {"include": [INCLUDED_LOGPROBS], "top_logprobs": 2}),
        header(JobKind.CHAT, {"n": 2, "logprobs": True, "stop_token_ids": [2]}),
        header(JobKind.COMPLETION, {"n": 2, "logprobs": 1}, {"num_prompts": 2}),
        header(
            JobKind.COMPLETION,
            {"n": 2, "logprobs": 1, "echo": True},
            {"num_prompts": 2, "prompt_texts": ["ab", "c"], "prompt_names": [[[0, "a"]], [[0, "c"], [1, "<s>"]]]},
        ),
    ]
)
_CANDIDATES = st.builds(
    candidate, st.sampled_from(["a", "é", b"\xc3", b"\xa9", b""]), st.floats(MIN_LOGPROB, 0), token_id=st.integers(1, 3)
)
_LIKELY = st.builds(TokenLogprobs, _CANDIDATES, st.lists(_CANDIDATES, max_size=2).map(tuple))


def total_choices(job: JobHeader) -> int:
    count = job.request.get("n", 1)
    prompts = job.context.get("num_prompts", 1)
    assert isinstance(count, int)
    assert isinstance(prompts, int)
    return count * prompts


@st.composite
def events(draw: st.DrawFn, job: JobHeader, choice: int, finish: FinishReason | None) -> TokenEvent:
    """An event; with log probabilities where the job wants them, and now and then without all the same."""
    if not {"logprobs", "include"} & job.request.keys() or draw(st.integers(0, 4)) == 0:
        return event(draw(_TEXT), choice=choice, finish=finish)
    likely = draw(st.lists(_LIKELY, max_size=2))
    return measured(
        draw(_TEXT), *likely, choice=choice, finish=finish, prompt=tuple(draw(st.lists(_LIKELY, max_size=2)))
    )


@st.composite
def steps(draw: st.DrawFn, job: JobHeader, status: JobStatus) -> list[list[TokenEvent]]:
    """Engine steps: each choice's events in order, at most one of a choice in a step, ended when there is an answer."""
    is_answered = status in (JobStatus.COMPLETED, JobStatus.INCOMPLETE)
    open_choices = list(range(total_choices(job)))
    made: list[list[TokenEvent]] = []
    for _ in range(draw(st.integers(0, 6))):
        step = []
        for choice in draw(st.lists(st.sampled_from(open_choices), unique=True)) if open_choices else []:
            finish = draw(st.sampled_from([None, None, None, *FinishReason]))
            step.append(draw(events(job, choice, finish)))
            if finish is not None:
                open_choices.remove(choice)
        if step:
            made.append(step)
    if is_answered:
        made.extend([draw(events(job, choice, FinishReason.STOP))] for choice in open_choices)
    return made


@st.composite
def jobs(draw: st.DrawFn) -> tuple[JobHeader, list[LogEntry], Result]:
    """A job with a log of one attempt or of several, and the result that its row keeps."""
    job = draw(_HEADERS)
    status = draw(_STATUSES)
    made = draw(steps(job, status))
    attempt, log = 1, [start()]
    for seq, step in enumerate(made, 1):
        log.append(tokens(seq, *step, attempt=attempt))
        while draw(st.booleans()):
            attempt += 1
            log.append(start(attempt))
    if not made and draw(st.booleans()):
        log = []
    log.append(end(len(made) + 1, status, attempt=attempt))
    return job, log, Result(entries=tuple(tuple(step) for step in made))


def fold_all(job: JobHeader, log: list[LogEntry]) -> list[bytes]:
    fold = fold_of(job)
    frames = [*fold.open(), *(frame for entry in log for frame in fold.feed(entry))]
    assert fold.is_ended
    return frames


@given(jobs())
def test_a_replay_from_the_row_is_the_live_stream(job: tuple[JobHeader, list[LogEntry], Result]) -> None:
    head, log, result = job

    assert fold_all(head, list(entries_of(result, log[-1].end))) == fold_all(head, log)


@given(jobs())
def test_later_attempts_leave_no_trace(job: tuple[JobHeader, list[LogEntry], Result]) -> None:
    head, log, _ = job
    first_attempt_only = [entry for entry in log if entry.kind is not EntryKind.START or entry.attempt == 1]

    assert fold_all(head, first_attempt_only) == fold_all(head, log)


@given(jobs())
def test_the_object_is_the_same_from_log_and_row_and_is_what_the_stream_ends_with(
    job: tuple[JobHeader, list[LogEntry], Result],
) -> None:
    head, log, result = job

    from_row = object_of(head, result, log[-1].end)

    assert object_of(head, log) == from_row
    assert json.loads(json.dumps(from_row)) == from_row
    last = payloads(fold_all(head, log))[-1]
    if head.kind is JobKind.RESPONSE:
        assert last["response"] == from_row


@given(jobs())
def test_the_pieces_of_a_stream_add_up_to_the_object(job: tuple[JobHeader, list[LogEntry], Result]) -> None:
    head, log, result = job
    shown = object_of(head, result, log[-1].end)
    streamed = dict.fromkeys(range(total_choices(head)), "")

    for payload in payloads(fold_all(head, log)):
        for choice, text in texts_of(payload):
            streamed[choice] += text

    if head.kind is JobKind.RESPONSE:
        output = shown["output"]
        assert isinstance(output, list)
        assert streamed[0] == "".join(item["content"][0]["text"] for item in output)
    elif "status" not in shown:
        choices = shown["choices"]
        assert isinstance(choices, list)
        whole = [choice["text"] if "text" in choice else choice["message"]["content"] for choice in choices]
        assert list(streamed.values()) == whole


def texts_of(payload: dict[str, object]) -> list[tuple[int, str]]:
    if payload.get("type") == "response.output_text.delta":
        return [(0, str(payload["delta"]))]
    choices = payload.get("choices", [])
    assert isinstance(choices, list)
    return [(choice["index"], choice.get("text") or choice.get("delta", {}).get("content", "")) for choice in choices]


@given(jobs())
def test_every_reported_token_is_streamed_once_and_in_order(job: tuple[JobHeader, list[LogEntry], Result]) -> None:
    head, log, result = job
    streamed: dict[int, list[object]] = {choice: [] for choice in range(total_choices(head))}

    for payload in payloads(fold_all(head, log)):
        if payload.get("type") == "response.output_text.delta":
            streamed[0] += cast(list[object], payload["logprobs"])
        for choice in cast(list[dict[str, Any]], payload.get("choices", [])):
            streamed[choice["index"]] += content_of(choice)

    if log[-1].end is not None and log[-1].end.status in (JobStatus.COMPLETED, JobStatus.INCOMPLETE):
        shown: Any = object_of(head, result, log[-1].end)
        if head.kind is JobKind.RESPONSE:
            assert streamed[0] == shown["output"][0]["content"][0]["logprobs"]
        else:
            assert streamed == {choice["index"]: content_of(choice) for choice in shown["choices"]}


def content_of(choice: dict[str, Any]) -> list[object]:
    logprobs = choice["logprobs"] or {"content": []}
    if "content" in logprobs:
        return list(logprobs["content"])
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    return list(zip(*(logprobs[name] for name in names), strict=True))


@given(jobs())
def test_sequence_numbers_have_no_gap(job: tuple[JobHeader, list[LogEntry], Result]) -> None:
    head, log, _ = job
    sent = payloads(fold_all(head, log))

    if head.kind is JobKind.RESPONSE:
        assert [one["sequence_number"] for one in sent] == list(range(len(sent)))
        assert [one["type"] for one in sent].count("response.output_item.added") <= 1


@given(jobs())
def test_a_frame_is_one_line_also_for_readers_that_split_as_unicode_does(
    job: tuple[JobHeader, list[LogEntry], Result],
) -> None:
    head, log, _ = job

    for frame in fold_all(head, log):
        assert len(frame.decode().splitlines()) == frame.count(b"\n")


@pytest.mark.parametrize("kind", GENERATION_KINDS)
def test_open_comes_before_any_entry(kind: JobKind) -> None:
    opened = fold_of(header(kind)).open()

    assert len(opened) == (1 if kind is JobKind.RESPONSE else 0)
