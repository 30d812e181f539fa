"""The chunk streams of chat and completions, chunk by chunk."""

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionStoreMessage

from api.protocol.answer.completion_parts import async_object
from api.protocol.chat.object import messages_of
from api.protocol.kinds import fold_of, object_of, skip_of
from storage.contract import Failure, FinishReason, JobHeader, JobKind, JobStatus, LogEntry
from tests.protocol.examples import CREATED_AT, JOB_IDS, end, event, header, payloads, start, tokens

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH
USAGE_BODY = {
    "prompt_tokens": 7,
    "completion_tokens": 3,
    "total_tokens": 10,
    "prompt_tokens_details": {"cached_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
WITH_USAGE: dict[str, object] = {"stream_options": {"include_usage": True}}


def chunks_of(job: JobHeader, *entries: LogEntry) -> list[dict[str, object]]:
    fold = fold_of(job)
    return payloads([*fold.open(), *(frame for entry in entries for frame in fold.feed(entry))])


def chat_chunk(*choices: dict[str, object], **more: object) -> dict[str, object]:
    return {
        "id": JOB_IDS[JobKind.CHAT],
        "object": "chat.completion.chunk",
        "created": CREATED_AT,
        "model": "demo",
        "service_tier": "default",
        "system_fingerprint": "fp_tokenpost",
        "choices": list(choices),
        **more,
    }


def delta(choice: int, finish: str | None = None, **content: str) -> dict[str, object]:
    return {"index": choice, "delta": content, "logprobs": None, "finish_reason": finish}


def role(choice: int) -> dict[str, object]:
    return delta(choice, role="assistant", content="")


def text_chunk(text: str, choice: int = 0, finish: str | None = None, **more: object) -> dict[str, object]:
    return {
        "id": JOB_IDS[JobKind.COMPLETION],
        "object": "text_completion",
        "created": CREATED_AT,
        "model": "demo",
        "system_fingerprint": "fp_tokenpost",
        "choices": [{"text": text, "index": choice, "logprobs": None, "finish_reason": finish}],
        **more,
    }


def test_a_chat_streams_role_text_and_finish() -> None:
    entries = [start(), tokens(1, event("")), tokens(2, event("Hé\n")), tokens(3, event("!", finish=STOP)), end(4)]

    chunks = chunks_of(header(JobKind.CHAT), *entries)

    assert chunks == [
        chat_chunk(role(0)),
        chat_chunk(delta(0, content="Hé\n")),
        chat_chunk(delta(0, content="!")),
        chat_chunk(delta(0, "stop")),
    ]


def test_choices_of_a_chat_interleave_and_usage_comes_last() -> None:
    entries = [
        start(),
        tokens(1, event("a", choice=1), event("b", choice=0)),
        tokens(2, event("c", choice=1, finish=LENGTH), event("", choice=0)),
        tokens(3, event("", choice=0, finish=STOP)),
        end(4, JobStatus.INCOMPLETE),
    ]

    chunks = chunks_of(header(JobKind.CHAT, {"n": 2, **WITH_USAGE}), *entries)

    assert chunks == [
        chat_chunk(role(0), usage=None),
        chat_chunk(role(1), usage=None),
        chat_chunk(delta(1, content="a"), usage=None),
        chat_chunk(delta(0, content="b"), usage=None),
        chat_chunk(delta(1, content="c"), usage=None),
        chat_chunk(delta(1, "length"), usage=None),
        chat_chunk(delta(0, "stop"), usage=None),
        chat_chunk(usage=USAGE_BODY),
    ]


@pytest.mark.parametrize(
    ("status", "failure", "error"),
    [
        (
            JobStatus.FAILED,
            Failure(code="numerical_error", message="Not a number."),
            {"message": "Not a number.", "type": "server_error", "param": None, "code": "numerical_error"},
        ),
        (
            JobStatus.CANCELLED,
            None,
            {"message": "The job was cancelled.", "type": "invalid_request_error", "param": None, "code": "cancelled"},
        ),
    ],
)
def test_a_chat_without_an_answer_ends_with_an_error(
    status: JobStatus, failure: Failure | None, error: dict[str, object]
) -> None:
    log = [start(), tokens(1, event("Hi")), end(2, status, failure=failure)]
    job = header(JobKind.CHAT, WITH_USAGE)

    chunks = chunks_of(job, *log)

    assert chunks[-1] == {"error": error}
    assert len(chunks) == 3
    shown = object_of(job, log)
    assert (shown["status"], shown["error"]) == (status.value, error)


def test_completions_stream_text_and_finish() -> None:
    chunks = chunks_of(header(JobKind.COMPLETION), start(), tokens(1, event("Hi", finish=LENGTH)), end(2))

    assert chunks == [text_chunk("Hi"), text_chunk("", finish="length")]


def test_echoes_come_first_one_for_each_choice() -> None:
    job = header(JobKind.COMPLETION, {"n": 2, "echo": True}, {"num_prompts": 2, "prompt_texts": ["one", "two"]})
    log = [
        start(),
        *(tokens(seq, event(str(choice), choice=choice, finish=STOP)) for seq, choice in enumerate((2, 0, 1, 3), 1)),
        end(5),
    ]

    chunks = chunks_of(job, *log)

    texts = {0: "one", 1: "one", 2: "two", 3: "two"}
    assert chunks == [
        *(text_chunk(texts[choice], choice) for choice in range(4)),
        *(
            chunk
            for choice in (2, 0, 1, 3)
            for chunk in (text_chunk(str(choice), choice), text_chunk("", choice, "stop"))
        ),
    ]
    shown = Completion.model_validate(object_of(job, log), strict=True)
    assert [choice.text for choice in shown.choices] == ["one0", "one1", "two2", "two3"]


def test_an_answered_job_leaves_no_choice_open() -> None:
    chunks = chunks_of(header(JobKind.CHAT, {"n": 2}), start(), tokens(1, event("a")), end(2))

    assert chunks == [
        chat_chunk(role(0)),
        chat_chunk(role(1)),
        chat_chunk(delta(0, content="a")),
        chat_chunk(delta(0, "stop")),
        chat_chunk(delta(1, "stop")),
    ]


def test_a_chat_object_is_openais() -> None:
    job = header(JobKind.CHAT, {"n": 2, "metadata": {"k": "v"}})
    log = [start(), tokens(1, event("a", finish=STOP), event("b", choice=1, finish=LENGTH)), end(2)]

    shown = object_of(job, log)

    chat = ChatCompletion.model_validate(shown, strict=True)
    assert [(choice.message.content, choice.finish_reason) for choice in chat.choices] == [
        ("a", "stop"),
        ("b", "length"),
    ]
    assert set(shown) == {
        "id",
        "object",
        "created",
        "model",
        "choices",
        "usage",
        "metadata",
        "service_tier",
        "system_fingerprint",
    }
    assert shown["usage"] == USAGE_BODY
    assert shown["metadata"] == {"k": "v"}
    assert object_of(job, log, metadata={})["metadata"] == {}


@pytest.mark.parametrize("kind", [JobKind.CHAT, JobKind.COMPLETION])
def test_an_unfinished_job_tells_its_status_and_its_text_so_far(kind: JobKind) -> None:
    shown = object_of(header(kind, status=JobStatus.IN_PROGRESS), [start(), tokens(1, event("Hi"))])

    choices = shown["choices"]
    assert isinstance(choices, list)
    assert (shown["status"], shown["usage"], choices[0]["finish_reason"]) == ("in_progress", None, None)


def test_the_receipt_of_an_asynchronous_completion() -> None:
    job = header(JobKind.COMPLETION)
    failed = end(1, JobStatus.FAILED).end

    receipt = {
        "id": JOB_IDS[JobKind.COMPLETION],
        "object": "async.completion",
        "status": "queued",
        "created_at": CREATED_AT,
        "model": "demo",
    }
    assert async_object(job) == receipt
    error = {"message": "The job failed.", "type": "server_error", "param": None, "code": "server_error"}
    assert async_object(job, failed) == {**receipt, "status": "failed", "error": error}


def test_stored_messages_have_ids_and_keep_their_parts() -> None:
    parts = [{"type": "text", "text": "hi"}]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts, "name": "ann"}]

    stored = messages_of(header(JobKind.CHAT, {"messages": messages}))

    job_id = JOB_IDS[JobKind.CHAT]
    assert [message["id"] for message in stored] == [f"{job_id}-0", f"{job_id}-1"]
    assert (stored[0]["content"], stored[0]["content_parts"]) == ("Be brief.", None)
    assert (stored[1]["content"], stored[1]["content_parts"], stored[1]["name"]) == (None, parts, "ann")
    assert set(stored[0]) <= {*ChatCompletionStoreMessage.model_fields, "name"}


def test_a_resumed_stream_of_chunks_goes_on_behind_the_count() -> None:
    assert skip_of(JobKind.CHAT, 0) == 0
    assert skip_of(JobKind.COMPLETION, 3) == 3
