"""The three ways to a result, with the unmodified SDK where it knows them."""

import httpx2
import openai
import pytest

from storage.contract import Failure
from tests.api.examples import CALLS, CHAT_MESSAGES, COMPLETION, NAMES, Call
from tests.api.fake_worker import TEXT, FakeWorker
from tests.waiting import wait_until


def test_a_response_is_answered_when_it_is_done(client: openai.OpenAI) -> None:
    raw = client.responses.with_raw_response.create(model="demo", input="Hi")

    response = raw.parse()
    assert response.output_text == TEXT
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.output_tokens == 7
    assert raw.headers["x-job-id"] == response.id
    assert client.responses.retrieve(response.id) == response


def test_a_response_streams(client: openai.OpenAI) -> None:
    with client.responses.stream(model="demo", input="Hi") as stream:
        types = [event.type for event in stream]
        final = stream.get_final_response()

    assert types[0] == "response.created"
    assert types[-1] == "response.completed"
    assert final.output_text == TEXT


def test_a_background_response_is_polled(client: openai.OpenAI, worker: FakeWorker) -> None:
    worker.pauses_at = 3
    response = client.responses.create(model="demo", input="Hi", background=True)
    assert response.status == "queued"

    partial = wait_until(lambda: _with_text(client, response.id))
    assert partial.status == "in_progress"
    assert partial.output_text == "Hello "

    worker.go.set()
    done = wait_until(lambda: _ended(client, response.id))
    assert done.output_text == TEXT


def test_a_background_response_streams_and_is_taken_up_again(client: openai.OpenAI) -> None:
    first, seen = [], client.responses.create(model="demo", input="Hi", background=True, stream=True)
    for event in seen:
        first.append(event)
        if len(first) == 5:
            break
    seen.close()
    created = first[0]
    assert created.type == "response.created"

    rest = client.responses.retrieve(created.response.id, stream=True, starting_after=first[-1].sequence_number)

    numbers = [event.sequence_number for event in (*first, *rest)]
    assert numbers == list(range(len(numbers)))
    wait_until(lambda: _ended(client, created.response.id).output_text == TEXT)


def test_the_sdk_replays_a_response_by_its_own_stream_helper(client: openai.OpenAI) -> None:
    job_id = client.responses.create(model="demo", input="Hi").id

    with client.responses.stream(response_id=job_id, starting_after=3) as stream:
        numbers = [event.sequence_number for event in stream]
        final = stream.get_final_response()

    assert numbers[0] == 4
    assert final.output_text == TEXT


def test_a_turn_continues_the_one_before(client: openai.OpenAI) -> None:
    first = client.responses.create(model="demo", input="One", instructions="Not carried over.")
    second = client.responses.create(model="demo", input="Two", previous_response_id=first.id)

    items = client.responses.input_items.list(second.id, order="asc").data

    assert [item.content[0].text for item in items] == ["One", TEXT, "Two"]  # type: ignore[union-attr]
    assert second.previous_response_id == first.id


def test_chat_is_answered_and_streams(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="demo", messages=CHAT_MESSAGES, n=2)  # type: ignore[arg-type]
    chunks = list(
        client.chat.completions.create(
            model="demo",
            messages=CHAT_MESSAGES,  # type: ignore[arg-type]
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    assert [choice.message.content for choice in whole.choices] == [TEXT, TEXT]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 7


def test_completions_take_many_prompts_and_echo_them(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="demo", prompt=["One ", "Two "], echo=True)

    assert [choice.text for choice in whole.choices] == ["One " + TEXT, "Two " + TEXT]


def test_a_token_limit_makes_an_incomplete_response(client: openai.OpenAI) -> None:
    response = client.responses.create(model="demo", input="Hi", extra_body={"max_output_tokens": 2})

    assert response.status == "incomplete"
    assert response.output_text == "Hello "


def test_an_asynchronous_completion_is_a_receipt_until_it_is_done(http: httpx2.Client, worker: FakeWorker) -> None:
    worker.pauses_at = 1
    accepted = http.post("/v1/async/completions", json={"model": "demo", "prompt": "Hi"})

    assert accepted.status_code == 202
    assert set(accepted.json()) == {"id", "object", "status", "created_at", "model", "tokenpost_queue"}
    where = accepted.headers["location"]
    assert http.get(where).json()["object"] == "async.completion"

    worker.go.set()
    done = wait_until(lambda: _completion(http, where))
    assert done["id"] == accepted.json()["id"]
    assert done["choices"][0]["text"] == TEXT


@pytest.mark.parametrize(("path", "body"), [("/v1/streaming/completions", 2), ("/v1/streaming/chat", 1)])
def test_the_streaming_aliases_stream(http: httpx2.Client, path: str, body: int) -> None:
    answer = http.post(path, json=CALLS[body].body)

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content.endswith(b"data: [DONE]\n\n")
    assert http.post(path, json={**CALLS[body].body, "stream": False}).status_code == 400


def test_a_finished_asynchronous_completion_keeps_its_status(http: httpx2.Client) -> None:
    accepted = http.post("/v1/async/completions", json=COMPLETION.body)
    where = accepted.headers["location"]

    wait_until(lambda: http.get(where).json()["object"] == "text_completion", 10, "the end of the job")
    done = http.get(where).json()

    assert done["status"] == "completed"
    plain = http.get(f"/v1/completions/{done['id']}").json()
    assert done == {**plain, "status": "completed"}


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_who_prefers_an_asynchronous_answer_gets_a_receipt(http: httpx2.Client, worker: FakeWorker, call: Call) -> None:
    worker.pauses_at = 2
    accepted = call.post(http, headers={"prefer": "respond-async"})
    late = call.post(http, headers={"prefer": "wait=0, respond-async"})

    for answer in (accepted, late):
        assert answer.status_code == 202
        assert "respond-async" in answer.headers["preference-applied"]
        assert answer.headers["location"] == call.url_of(answer.headers["x-job-id"])

    worker.go.set()
    wait_until(lambda: "Hello" in http.get(accepted.headers["location"]).text)


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_who_waits_a_while_gets_the_outcome_or_a_receipt(http: httpx2.Client, worker: FakeWorker, call: Call) -> None:
    done = call.post(http, headers={"prefer": "wait=20"})
    worker.pauses_at = 2
    late = call.post(http, headers={"prefer": "wait=1"})
    worker.go.set()

    assert done.status_code == 200
    assert "Hello" in done.text
    assert late.status_code == 202
    # The job runs on: nobody cancelled it.
    wait_until(lambda: http.get(late.headers["location"]).json().get("status", "completed") == "completed")


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_a_failed_job_is_an_error_to_who_waits_and_a_fact_to_who_asks(
    http: httpx2.Client, worker: FakeWorker, call: Call
) -> None:
    worker.failure = Failure(code="numerical_error", message="The logits were not finite.")
    answer = call.post(http)

    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "The logits were not finite."
    assert answer.headers["x-should-retry"] == "false"
    stored = http.get(call.url_of(answer.headers["x-job-id"]))
    assert stored.status_code == 200
    assert stored.json()["status"] == "failed"


def test_a_failed_stream_tells_the_sdk(client: openai.OpenAI, worker: FakeWorker) -> None:
    worker.failure = Failure(code="numerical_error", message="The logits were not finite.")

    with pytest.raises(openai.APIError, match="not finite"):
        list(client.chat.completions.create(model="demo", messages=CHAT_MESSAGES, stream=True))  # type: ignore[call-overload]
    events = list(client.responses.create(model="demo", input="Hi", stream=True))
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]


def _ended(client: openai.OpenAI, job_id: str):  # type: ignore[no-untyped-def]  # a Response of the SDK, or None
    response = client.responses.retrieve(job_id)
    return response if response.status not in ("queued", "in_progress") else None


def _with_text(client: openai.OpenAI, job_id: str):  # type: ignore[no-untyped-def]  # a Response of the SDK, or None
    response = client.responses.retrieve(job_id)
    return response if response.output_text == "Hello " else None


def _completion(http: httpx2.Client, where: str):  # type: ignore[no-untyped-def]  # a JSON object, or None
    found = http.get(where).json()
    return found if found["object"] == "text_completion" else None
