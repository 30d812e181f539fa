"""Batches by the unmodified SDK, from the upload to the files of the results."""

import io
import json
from typing import Any

import pytest
from openai import BadRequestError, ConflictError, NotFoundError, OpenAI
from openai.types import Batch

from tests.waiting import wait_until

Line = dict[str, Any]  # Any: JSON
_PATIENCE_S = 60.0
_OPEN = ("validating", "in_progress", "finalizing", "cancelling")


def _line(custom_id: str, url: str = "/v1/chat/completions", **body: object) -> Line:
    messages = [{"role": "user", "content": f"Say {custom_id}"}]
    usual = body or {"messages": messages, "max_tokens": 8}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "demo", **usual}}


def _upload(client: OpenAI, lines: list[Line]) -> str:
    content = "\n".join(map(json.dumps, lines)).encode()
    return client.files.create(purpose="batch", file=("in.jsonl", io.BytesIO(content))).id


def _ended(client: OpenAI, batch_id: str) -> Batch:
    wait_until(lambda: client.batches.retrieve(batch_id).status not in _OPEN, _PATIENCE_S, "the end of the batch")
    return client.batches.retrieve(batch_id)


def _results(client: OpenAI, file_id: str | None) -> dict[str, Line]:
    if file_id is None:
        return {}
    lines = [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    return {line["custom_id"]: line for line in lines}


def test_a_batch_is_created_polled_and_its_results_are_read(client: OpenAI) -> None:
    lines = [_line(f"request-{number}") for number in range(20)]
    lines.append(_line("refused", messages=[{"role": "user", "content": "x"}], stream=True))
    file_id = _upload(client, lines)

    made = client.batches.create(
        input_file_id=file_id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"night": "1"},
        output_expires_after={"anchor": "created_at", "seconds": 7200},
    )
    batch = _ended(client, made.id)

    assert made.status == "validating"
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (21, 20, 1)
    assert (batch.model, batch.metadata) == ("demo", {"night": "1"})
    assert batch.usage is not None
    assert batch.usage.output_tokens > 0
    output, errors = _results(client, batch.output_file_id), _results(client, batch.error_file_id)
    assert output.keys() == {f"request-{number}" for number in range(20)}
    assert output["request-3"]["response"]["body"]["choices"][0]["message"]["role"] == "assistant"
    assert errors["refused"]["response"]["status_code"] == 400
    assert errors["refused"]["response"]["body"]["error"]["param"] == "stream"
    assert client.files.retrieve(batch.output_file_id or "").purpose == "batch_output"
    # The answer of a line is the object of its job.
    job_id = output["request-3"]["response"]["body"]["id"]
    assert client.chat.completions.retrieve(job_id).id == job_id
    assert made.id in [one.id for one in client.batches.list(limit=5)]


@pytest.mark.parametrize(
    ("endpoint", "body", "noun"),
    [
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 16}, "response"),
        ("/v1/completions", {"prompt": "Once", "max_tokens": 4}, "text_completion"),
    ],
)
def test_every_kind_of_job_can_be_a_line(client: OpenAI, endpoint: Any, body: Line, noun: str) -> None:
    file_id = _upload(client, [_line("one", endpoint, **body)])

    made = client.batches.create(input_file_id=file_id, endpoint=endpoint, completion_window="24h")
    batch = _ended(client, made.id)

    assert _results(client, batch.output_file_id)["one"]["response"]["body"]["object"] == noun


def test_a_bad_file_ends_as_failed_with_its_lines(client: OpenAI) -> None:
    file_id = _upload(client, [_line("same"), _line("same"), {"custom_id": "x"}])

    made = client.batches.create(input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h")
    batch = _ended(client, made.id)

    assert batch.status == "failed"
    assert batch.errors is not None
    assert [(error.code, error.line) for error in batch.errors.data or ()] == [
        ("duplicate_custom_id", 2),
        ("missing_required_parameter", 3),
    ]
    with pytest.raises(ConflictError):
        client.batches.cancel(made.id)


def test_a_cancelled_batch_tells_each_request_once(client: OpenAI) -> None:
    lines = [_line(f"request-{number}") for number in range(3000)]
    made = client.batches.create(
        input_file_id=_upload(client, lines), endpoint="/v1/chat/completions", completion_window="24h"
    )
    wait_until(lambda: client.batches.retrieve(made.id).status == "in_progress", _PATIENCE_S, "a batch in progress")

    assert client.batches.cancel(made.id).status == "cancelling"
    batch = _ended(client, made.id)

    assert batch.status == "cancelled"
    output, errors = _results(client, batch.output_file_id), _results(client, batch.error_file_id)
    assert not output.keys() & errors.keys()
    assert len(output) + len(errors) == 3000
    assert {one["error"]["code"] for one in errors.values()} == {"batch_cancelled"}
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (len(output), len(errors))


def test_requests_in_the_body_are_listed_and_tried_again(client: OpenAI) -> None:
    requests = [_line("good"), _line("bad", messages=[], max_tokens=4)]
    body = {"endpoint": "/v1/chat/completions", "completion_window": "1h", "requests": requests}

    made = client.post("/batches", body=body, cast_to=Batch)
    batch = _ended(client, made.id)
    first = client.get(f"/batches/{made.id}/requests?limit=1", cast_to=object)
    rest = client.get(f"/batches/{made.id}/requests?after={first['data'][0]['id']}", cast_to=object)  # type: ignore[index]
    again = client.post(f"/batches/{made.id}/retry", cast_to=Batch)

    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 1)
    assert [one["custom_id"] for page in (first, rest) for one in page["data"]] == ["good", "bad"]  # type: ignore[index]
    assert _ended(client, again.id).request_counts.total == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"endpoint": "/v1/models"}, "endpoint"),
        ({"completion_window": "200h"}, "completion_window"),
        ({"completion_window": "1d"}, "completion_window"),
        ({"priority": 0}, "priority"),
        ({"requests": []}, "requests"),
        ({"input_file_id": "file-x"}, "input_file_id"),
        ({"foo": 1}, "foo"),
        ({"requests": [{"custom_id": "a"}]}, "requests[0].method"),
        ({"requests": [_line("a"), _line("a")]}, "requests[1].custom_id"),
    ],
)
def test_a_create_call_that_is_wrong_is_refused_at_once(client: OpenAI, changes: Line, param: str) -> None:
    body = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "requests": [_line("a")]} | changes

    with pytest.raises(BadRequestError) as refused:
        client.post("/batches", body=body, cast_to=Batch)

    assert refused.value.param == param


def test_unknown_files_and_batches_are_not_found(client: OpenAI) -> None:
    with pytest.raises(NotFoundError):
        client.batches.create(input_file_id="file-no", endpoint="/v1/responses", completion_window="24h")
    with pytest.raises(NotFoundError):
        client.batches.retrieve("batch_no")
    with pytest.raises(NotFoundError):
        client.batches.cancel("batch_no")


def test_a_file_of_another_purpose_is_refused(client: OpenAI) -> None:
    other = client.files.create(purpose="user_data", file=("a.txt", io.BytesIO(b"{}"))).id

    with pytest.raises(BadRequestError) as refused:
        client.batches.create(input_file_id=other, endpoint="/v1/responses", completion_window="24h")

    assert refused.value.param == "input_file_id"
