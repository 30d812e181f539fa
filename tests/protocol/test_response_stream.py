"""The event stream of Responses, event by event."""

from openai.types.responses import Response

from api.protocol.kinds import fold_of, object_of, skip_of
from storage.contract import Failure, FinishReason, JobHeader, JobKind, JobStatus, LogEntry
from tests.protocol.examples import (
    CREATED_AT,
    ENDED_AT,
    SUFFIX,
    end,
    event,
    header,
    payloads,
    start,
    tokens,
)

KIND = JobKind.RESPONSE
MESSAGE_ID = f"msg_{SUFFIX}"
PLACE = {"item_id": MESSAGE_ID, "output_index": 0, "content_index": 0}


def frames_of(job: JobHeader, *entries: LogEntry) -> list[bytes]:
    fold = fold_of(job)
    return [*fold.open(), *(frame for entry in entries for frame in fold.feed(entry))]


def part(text: str) -> dict[str, object]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def item(status: str, *parts: dict[str, object]) -> dict[str, object]:
    return {"id": MESSAGE_ID, "type": "message", "status": status, "role": "assistant", "content": list(parts)}


def body(status: str, output: list[dict[str, object]], **changed: object) -> dict[str, object]:
    return {
        "id": f"resp_{SUFFIX}",
        "object": "response",
        "created_at": CREATED_AT,
        "status": status,
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": "demo",
        "output": output,
        "frequency_penalty": 0.0,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "presence_penalty": 0.0,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
        "usage": None,
        **changed,
    }


USAGE_BODY = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 10,
}


def numbered(events: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{**one, "sequence_number": number} for number, one in enumerate(events)]


def delta(text: str) -> dict[str, object]:
    return {"type": "response.output_text.delta", **PLACE, "delta": text, "logprobs": []}


def opening() -> list[dict[str, object]]:
    return [
        {"type": "response.created", "response": body("in_progress", [])},
        {"type": "response.in_progress", "response": body("in_progress", [])},
        {"type": "response.output_item.added", "output_index": 0, "item": item("in_progress")},
        {"type": "response.content_part.added", **PLACE, "part": part("")},
    ]


def closing(text: str, status: str) -> list[dict[str, object]]:
    return [
        {"type": "response.output_text.done", **PLACE, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **PLACE, "part": part(text)},
        {"type": "response.output_item.done", "output_index": 0, "item": item(status, part(text))},
    ]


def test_a_completed_response_streams_every_event_in_order() -> None:
    entries = [
        start(),
        tokens(1, event("")),
        tokens(2, event('Hé "\n')),
        tokens(3, event("llo", finish=FinishReason.STOP)),
        end(4),
    ]

    frames = frames_of(header(KIND), *entries)

    done = body("completed", [item("completed", part('Hé "\nllo'))], completed_at=ENDED_AT, usage=USAGE_BODY)
    assert payloads(frames) == numbered(
        [
            *opening(),
            delta('Hé "\n'),
            delta("llo"),
            *closing('Hé "\nllo', "completed"),
            {"type": "response.completed", "response": done},
        ]
    )


def test_a_background_response_is_queued_before_it_runs() -> None:
    frames = frames_of(header(KIND, background=True), start())

    queued = body("queued", [], background=True)
    assert payloads(frames) == numbered(
        [
            {"type": "response.created", "response": queued},
            {"type": "response.queued", "response": queued},
            {"type": "response.in_progress", "response": body("in_progress", [], background=True)},
        ]
    )


def test_a_response_cut_by_its_limit_is_incomplete() -> None:
    frames = frames_of(
        header(KIND), start(), tokens(1, event("Hi", finish=FinishReason.LENGTH)), end(2, JobStatus.INCOMPLETE)
    )

    cut = body(
        "incomplete",
        [item("incomplete", part("Hi"))],
        incomplete_details={"reason": "max_output_tokens"},
        usage=USAGE_BODY,
    )
    assert payloads(frames) == numbered(
        [
            *opening(),
            delta("Hi"),
            *closing("Hi", "incomplete"),
            {"type": "response.incomplete", "response": cut},
        ]
    )


def test_a_failure_is_reported_twice_an_error_and_then_the_failed_response() -> None:
    failure = Failure(code="worker_lost", message="Three workers were lost.")

    frames = frames_of(header(KIND), start(), tokens(1, event("Hi")), end(2, JobStatus.FAILED, failure=failure))

    failed = body(
        "failed",
        [item("incomplete", part("Hi"))],
        error={"code": "server_error", "message": "Three workers were lost."},
    )
    assert payloads(frames) == numbered(
        [
            *opening(),
            delta("Hi"),
            *closing("Hi", "incomplete"),
            {"type": "error", "code": "worker_lost", "message": "Three workers were lost.", "param": None},
            {"type": "response.failed", "response": failed},
        ]
    )


def test_a_response_that_never_ran_is_cancelled_in_legal_order() -> None:
    frames = frames_of(header(KIND, background=True), end(0, JobStatus.CANCELLED, attempt=1))

    events = payloads(frames)
    assert [one["type"] for one in events] == [
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.incomplete",
    ]
    assert events[-1]["response"] == body("cancelled", [], background=True)


def test_a_cancelled_response_keeps_its_partial_text() -> None:
    frames = frames_of(header(KIND), start(), tokens(1, event("Hi")), end(2, JobStatus.CANCELLED))

    events = payloads(frames)
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"] == body("cancelled", [item("incomplete", part("Hi"))])


def test_an_answer_without_tokens_still_opens_and_closes_its_message() -> None:
    frames = frames_of(header(KIND), start(), end(1))

    done = body("completed", [item("completed", part(""))], completed_at=ENDED_AT, usage=USAGE_BODY)
    assert payloads(frames) == numbered(
        [*opening(), *closing("", "completed"), {"type": "response.completed", "response": done}]
    )


def test_nothing_follows_the_end() -> None:
    fold = fold_of(header(KIND))
    fold.open()

    last = fold.feed(end(1))

    assert last
    assert fold.is_ended
    assert fold.feed(end(0, attempt=2)) == []
    assert fold.feed(start(3)) == []


def test_a_running_response_shows_its_text_so_far() -> None:
    queued = header(KIND, background=True)
    running = header(KIND, status=JobStatus.IN_PROGRESS)

    assert object_of(queued, []) == body("queued", [], background=True)
    assert object_of(running, [start()]) == body("in_progress", [])
    assert object_of(running, [start(), tokens(1, event("Hi"))]) == body(
        "in_progress", [item("in_progress", part("Hi"))]
    )


def test_the_request_is_echoed() -> None:
    asked = {
        "instructions": "Be brief.",
        "max_output_tokens": 5,
        "metadata": {"k": "v"},
        "previous_response_id": "resp_0",
        "prompt_cache_key": "key",
        "safety_identifier": "someone",
        "store": False,
        "temperature": 0.5,
        "tool_choice": "none",
        "top_p": 0.25,
        "truncation": "auto",
        "user": "me",
    }

    shown = object_of(header(KIND, {**asked, "seed": 5, "service_tier": "auto", "text": {}}), [])

    assert shown == body("queued", [], **asked)
    assert Response.model_validate(shown, strict=True).temperature == 0.5


def test_a_resumed_stream_goes_on_behind_the_number_that_was_seen() -> None:
    frames = frames_of(header(KIND), start(), tokens(1, event("Hi", finish=FinishReason.STOP)), end(2))

    tail = frames[skip_of(KIND, 3) :]

    assert payloads(tail)[0]["sequence_number"] == 4
