"""The unmodified openai SDK reads our frames and objects."""

import json
from collections.abc import Callable, Iterable

import httpx2
import pytest
from openai import APIError, OpenAI
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from api.protocol.chat.request import ChatRequest
from api.protocol.completions.request import CompletionRequest
from api.protocol.kinds import fold_of, object_of, prepare, skip_of
from api.protocol.responses.request import InputTokensRequest, ResponseRequest
from api.protocol.shared.frames import DONE, HEARTBEAT
from api.protocol.shared.job_request import JobRequest as Request
from storage.contract import Failure, FinishReason, JobHeader, JobKind, JobStatus, LogEntry
from tests.protocol.examples import end, event, header, payloads, start, tokens, tools

STOP = FinishReason.STOP
HELLO = [start(), tokens(1, event("")), tokens(2, event("Hel")), start(2), tokens(3, event("lo", finish=STOP)), end(4)]
USER = {"role": "user", "content": "hi"}
PARSERS: dict[str, type[ResponseRequest] | type[ChatRequest] | type[CompletionRequest]] = {
    "/v1/responses": ResponseRequest,
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses/input_tokens": InputTokensRequest,
}


class Server:
    """Answers every call with one job, in process; parses what the SDK really sends."""

    def __init__(self, job: JobHeader, log: list[LogEntry]) -> None:
        self.job = job
        self.log = log
        self.requests: list[Request] = []

    def __call__(self, call: httpx2.Request) -> httpx2.Response:
        query = dict(call.url.params)
        sent = json.loads(call.content or b"{}")
        if call.method == "POST":
            request = PARSERS[call.url.path].parse(call.content)
            self.requests.append(request)
            prepare(request, tools(), seed=1)
        if query.get("stream") != "true" and not sent.get("stream"):
            return httpx2.Response(200, json=object_of(self.job, self.log))
        skip = skip_of(self.job.kind, int(query.get("starting_after", -1 if self.job.kind is JobKind.RESPONSE else 0)))
        frames = [HEARTBEAT, *frames_of(self.job, self.log)[skip:], DONE]
        return httpx2.Response(200, content=b"".join(frames), headers={"content-type": "text/event-stream"})


def frames_of(job: JobHeader, log: Iterable[LogEntry]) -> list[bytes]:
    fold = fold_of(job)
    return [*fold.open(), *(frame for entry in log for frame in fold.feed(entry))]


def client_of(server: Callable[[httpx2.Request], httpx2.Response]) -> OpenAI:
    transport = httpx2.MockTransport(server)
    return OpenAI(
        api_key="k", base_url="http://tokenpost/v1", http_client=httpx2.Client(transport=transport), max_retries=0
    )


@pytest.mark.parametrize("background", [False, True])
def test_responses_stream_accumulates_the_response(background: bool) -> None:
    job = header(JobKind.RESPONSE, background=background)
    client = client_of(Server(job, HELLO))

    with client.responses.stream(model="demo", input="hi", background=background) as stream:
        seen = [one.type for one in stream]
        final = stream.get_final_response()

    assert final.output_text == "Hello"
    assert seen.count("response.output_text.delta") == 2
    assert seen[-1] == "response.completed"
    assert final.usage is not None
    assert final.usage.total_tokens == 10


def test_a_response_stream_can_be_resumed_both_ways() -> None:
    client = client_of(Server(header(JobKind.RESPONSE), HELLO))

    tail = list(client.responses.retrieve("resp_1", stream=True, starting_after=4))
    with client.responses.stream(response_id="resp_1", starting_after=4) as replay:
        filtered = list(replay)

    assert [one.sequence_number for one in tail] == list(range(5, 10))
    assert [one.sequence_number for one in filtered] == list(range(5, 10))


@pytest.mark.parametrize("status", [status for status in JobStatus if status.is_terminal])
@pytest.mark.parametrize("log", [HELLO[:-1], []], ids=["text", "nothing"])
def test_every_event_is_of_the_specifications_type(status: JobStatus, log: list[LogEntry]) -> None:
    failure = Failure(code="worker_lost", message="Lost.") if status is JobStatus.FAILED else None
    whole = [*log, end(4, status, failure=failure)]
    event_type: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)

    for payload in payloads(frames_of(header(JobKind.RESPONSE, background=True), whole)):
        parsed = event_type.validate_python(payload)
        assert parsed.type == payload["type"]
        assert not parsed.model_extra

    shown = Response.model_validate(object_of(header(JobKind.RESPONSE), whole))
    assert shown.status == status.value


@pytest.mark.parametrize("status", [JobStatus.INCOMPLETE, JobStatus.FAILED, JobStatus.CANCELLED])
def test_an_iteration_over_an_unhappy_stream_ends_in_peace(status: JobStatus) -> None:
    client = client_of(Server(header(JobKind.RESPONSE), [*HELLO[:-1], end(4, status)]))

    with client.responses.stream(model="demo", input="hi") as stream:
        last = list(stream)[-1]
        with pytest.raises(RuntimeError):
            stream.get_final_response()

    assert last.type in ("response.incomplete", "response.failed")
    assert last.response.status == status.value


def test_a_blocking_response_and_what_its_extra_body_brings() -> None:
    server = Server(header(JobKind.RESPONSE), HELLO)

    response = client_of(server).responses.create(
        model="demo",
        input=[{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
        instructions="Be brief.",
        metadata={"k": "v"},
        extra_body={"seed": 5, "stop": "x", "top_k": 3},
    )
    again = client_of(server).responses.create(
        model="demo",
        input=[*response.output, {"role": "user", "content": "?"}],  # type: ignore[list-item] # as users do
    )

    assert response.output_text == "Hello"
    assert (server.requests[0].seed, server.requests[0].stop, server.requests[0].top_k) == (5, ["x"], 3)
    assert again.id == response.id


def test_a_chat_stream_accumulates_the_completion() -> None:
    request = {"n": 2, "stream_options": {"include_usage": True}}
    log = [
        start(),
        tokens(1, event("He", choice=1), event("Ho")),
        tokens(2, event("y", choice=1, finish=STOP)),
        tokens(3, event("!", finish=STOP)),
        end(4),
    ]
    client = client_of(Server(header(JobKind.CHAT, request), log))

    with client.chat.completions.stream(
        model="demo",
        messages=[{"role": "user", "content": "hi"}],
        n=2,
        stream_options={"include_usage": True},
    ) as stream:
        kinds = {one.type for one in stream}
        final = stream.get_final_completion()

    assert [choice.message.content for choice in final.choices] == ["Ho!", "Hey"]
    assert [choice.finish_reason for choice in final.choices] == ["stop", "stop"]
    assert {"content.delta", "content.done"} <= kinds
    assert final.usage is not None
    assert final.usage.completion_tokens == 3


def test_plain_streams_of_chunks_are_typed() -> None:
    chat = client_of(Server(header(JobKind.CHAT), HELLO))
    text = client_of(Server(header(JobKind.COMPLETION), HELLO))

    chunks = list(chat.chat.completions.create(model="demo", messages=[{"role": "user", "content": "hi"}], stream=True))
    texts = list(text.completions.create(model="demo", prompt="hi", stream=True))

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello"
    assert "".join(chunk.choices[0].text for chunk in texts) == "Hello"
    for chunk in chunks:
        assert not ChatCompletionChunk.model_validate(chunk.to_dict(), strict=True).model_extra


def test_an_error_in_a_stream_of_chunks_is_raised() -> None:
    failure = Failure(code="worker_lost", message="Three workers were lost.")
    client = client_of(Server(header(JobKind.CHAT), [*HELLO[:-1], end(4, JobStatus.FAILED, failure=failure)]))

    stream = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "hi"}], stream=True)

    with pytest.raises(APIError, match=r"Three workers were lost\.") as raised:
        list(stream)
    assert raised.value.code == "worker_lost"


def test_answered_objects_are_strictly_typed_and_hold_nothing_unknown() -> None:
    response = Response.model_validate(object_of(header(JobKind.RESPONSE), HELLO), strict=True)
    chat = ChatCompletion.model_validate(object_of(header(JobKind.CHAT), HELLO), strict=True)
    completion = Completion.model_validate(object_of(header(JobKind.COMPLETION), HELLO), strict=True)

    # Keys of Open Responses.
    assert set(response.model_extra or {}) == {"frequency_penalty", "presence_penalty", "store"}
    assert not chat.model_extra
    assert not completion.model_extra


def test_a_message_that_we_answered_can_be_sent_back() -> None:
    server = Server(header(JobKind.CHAT), HELLO)
    client = client_of(server)

    answer = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "hi"}])
    message = answer.choices[0].message.to_dict()
    client.chat.completions.create(model="demo", messages=[message])  # type: ignore[list-item] # as users do

    request = server.requests[1]
    assert isinstance(request, ChatRequest)
    assert request.messages[0].text == "Hello"
