"""Responses in conversations: one turn at a time, whose items are added with its end."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest
from sqlalchemy import text

from storage.contract import Failure
from tests.api.fake_worker import TEXT, FakeWorker
from tests.protocol.examples import manifest
from tests.waiting import wait_until

Json = dict[str, Any]


@pytest.fixture
def database_url(each_database_url: str) -> str:
    return each_database_url


@pytest.fixture
def conversation_id(http: httpx2.Client) -> str:
    made: str = http.post("/v1/conversations", json={}).json()["id"]
    return made


def _post(http: httpx2.Client, conversation: object, said: object = "Hi", **fields: object) -> httpx2.Response:
    return http.post("/v1/responses", json={"model": "demo", "input": said, "conversation": conversation, **fields})


def _say(http: httpx2.Client, conversation: object, said: object = "Hi", **fields: object) -> Json:
    answer = _post(http, conversation, said, **fields)
    assert answer.status_code == 200, answer.text
    response: Json = answer.json()
    return response


def _items(http: httpx2.Client, conversation_id: str, order: str = "asc") -> list[Json]:
    page = http.get(f"/v1/conversations/{conversation_id}/items", params={"order": order, "limit": 100})
    assert page.status_code == 200, page.text
    found: list[Json] = page.json()["data"]
    return found


def _texts(http: httpx2.Client, conversation_id: str, order: str = "asc") -> list[str]:
    return [item["content"][0]["text"] for item in _items(http, conversation_id, order)]


def _add(http: httpx2.Client, conversation_id: str, *items: Json) -> httpx2.Response:
    return http.post(f"/v1/conversations/{conversation_id}/items", json={"items": list(items)})


def _error(answer: httpx2.Response, status: int) -> Json:
    assert answer.status_code == status, answer.text
    error: Json = answer.json()["error"]
    return error


def _pause(worker: FakeWorker) -> None:
    worker.go.clear()
    worker.pauses_at = 3


def _wait_until_running(http: httpx2.Client, response_id: str) -> None:
    wait_until(lambda: http.get(f"/v1/responses/{response_id}").json()["status"] == "in_progress")


def test_a_turn_sees_the_items_before_it_and_adds_its_own(
    http: httpx2.Client, worker: FakeWorker, conversation_id: str
) -> None:
    first = _say(http, conversation_id, "one", instructions="Be kind.")
    second = _say(http, {"id": conversation_id}, "two", store=False)

    assert first["conversation"] == second["conversation"] == {"id": conversation_id}
    assert _texts(http, conversation_id) == ["one", TEXT, "two", TEXT]
    prompts = [spec.prompts[0] for spec in worker.specs]
    count = http.post(
        "/v1/responses/input_tokens", json={"model": "demo", "input": "three", "conversation": conversation_id}
    )
    third = _say(http, conversation_id, "three")
    assert count.json()["input_tokens"] == len(worker.specs[-1].prompts[0]) > len(prompts[1])
    assert "conversation" not in http.post("/v1/responses", json={"model": "demo", "input": "Hi"}).json()
    listed = http.get(f"/v1/responses/{third['id']}/input_items", params={"order": "asc"}).json()["data"]
    assert [item["id"] for item in listed] == [item["id"] for item in _items(http, conversation_id)[:5]]


def test_a_turns_prompt_is_that_of_the_same_chain(
    http: httpx2.Client, worker: FakeWorker, conversation_id: str
) -> None:
    previous = None
    for said in ("one", "two", "three"):
        _say(http, conversation_id, said)
        body = {"model": "demo", "input": said, "previous_response_id": previous}
        previous = http.post("/v1/responses", json=body).json()["id"]

        assert worker.specs[-1].prompts == worker.specs[-2].prompts


def test_ids_are_the_same_in_stream_object_and_conversation(client: openai.OpenAI, conversation_id: str) -> None:
    events = list(
        client.responses.create(model="demo", input="Hi", conversation=conversation_id, stream=True, background=True)
    )
    final = events[-1].response  # type: ignore[union-attr]  # of a completed event
    stored = client.responses.retrieve(final.id)
    replayed = list(client.responses.retrieve(final.id, stream=True))

    items = list(client.conversations.items.list(conversation_id, order="asc"))
    added = [event.item for event in events if event.type == "response.output_item.done"]
    assert replayed == events
    assert [item.id for item in items[1:]] == [item.id for item in added] == [item.id for item in stored.output]
    assert stored.conversation is not None
    assert stored.conversation.id == conversation_id
    [own] = client.responses.input_items.list(final.id)
    assert own.id == items[0].id


def test_of_twenty_turns_at_once_one_runs(
    http: httpx2.Client, elsewhere: httpx2.Client, worker: FakeWorker, conversation_id: str
) -> None:
    _pause(worker)

    def post(number: int) -> httpx2.Response:
        return _post((http, elsewhere)[number % 2], conversation_id, f"turn {number}", background=True)

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(post, range(20)))

    [accepted] = [answer.json() for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {_error(answer, 409)["code"] for answer in refused} == {"conversation_locked"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    worker.go.set()
    wait_until(lambda: http.get(f"/v1/responses/{accepted['id']}").json()["status"] == "completed")
    assert len(_items(http, conversation_id)) == 2
    _say(elsewhere, conversation_id, "after")
    assert len(_items(http, conversation_id)) == 4


def test_items_added_beside_an_open_turn_stand_behind_it(
    http: httpx2.Client, worker: FakeWorker, conversation_id: str
) -> None:
    _add(http, conversation_id, {"role": "user", "content": "before"})
    _pause(worker)
    turn = _say(http, conversation_id, [{"role": "user", "content": "turn", "id": "msg_turn"}], background=True)
    _wait_until_running(http, turn["id"])

    suffix = turn["id"].partition("_")[2]
    for taken in ("msg_turn", f"msg_{suffix}", f"msg_{suffix}n1"):
        assert _error(_add(http, conversation_id, {"role": "user", "content": "", "id": taken}), 400)["param"]
    assert _add(http, conversation_id, {"role": "user", "content": "behind", "id": "msg_b"}).status_code == 200

    # Who reads forwards must not pass the place of the turn.
    assert _texts(http, conversation_id) == ["before"]
    assert _texts(http, conversation_id, "desc") == ["behind", "before"]
    assert http.get(f"/v1/conversations/{conversation_id}/items/msg_b").status_code == 200
    worker.go.set()
    wait_until(lambda: http.get(f"/v1/responses/{turn['id']}").json()["status"] == "completed")
    assert _texts(http, conversation_id) == ["before", "turn", TEXT, "behind"]
    assert _texts(http, conversation_id, "desc") == ["behind", TEXT, "turn", "before"]


def test_a_cancelled_turn_adds_nothing_and_the_next_one_follows(
    http: httpx2.Client, worker: FakeWorker, conversation_id: str
) -> None:
    _say(http, conversation_id, "one")
    _pause(worker)
    turn = _say(http, conversation_id, "two", background=True)
    _wait_until_running(http, turn["id"])

    assert http.post(f"/v1/responses/{turn['id']}/cancel").json()["status"] == "cancelled"
    worker.pauses_at = None
    _say(http, conversation_id, "three")

    assert _texts(http, conversation_id) == ["one", TEXT, "three", TEXT]


@pytest.mark.parametrize("way", ["erased", "expired", "abandoned"])
def test_a_turn_that_was_ended_from_outside_adds_nothing(
    http: httpx2.Client, worker: FakeWorker, conversation_id: str, way: str
) -> None:
    _pause(worker)
    if way == "abandoned":
        with pytest.raises(httpx2.ReadTimeout):
            http.post(
                "/v1/responses",
                json={"model": "demo", "input": "gone", "conversation": conversation_id},
                timeout=0.5,
            )
    else:
        turn = _say(http, conversation_id, "gone", background=True)
        _wait_until_running(http, turn["id"])
        if way == "erased":
            assert http.delete(f"/v1/responses/{turn['id']}").status_code == 200
        else:
            with worker.database.begin() as c:
                c.execute(text("UPDATE job SET status = 'failed', ended_at = created_at"))
    wait_until(lambda: _post(http, conversation_id, "next", background=True).status_code == 200)
    worker.go.set()
    wait_until(lambda: len(_items(http, conversation_id)) == 2)

    assert _texts(http, conversation_id) == ["next", TEXT]


def test_an_incomplete_turn_is_added_and_a_failed_one_is_not(
    http: httpx2.Client, worker: FakeWorker, conversation_id: str
) -> None:
    cut = _say(http, conversation_id, "one", max_output_tokens=2)
    worker.failure = Failure(code="numerical_error", message="no")
    assert _post(http, conversation_id, "two").status_code == 500
    worker.failure = None

    assert cut["status"] == "incomplete"
    items = _items(http, conversation_id)
    assert [item["content"][0]["text"] for item in items] == ["one", "Hello "]
    assert items[1]["status"] == "incomplete"


def test_items_outlive_the_response_that_made_them(http: httpx2.Client, conversation_id: str) -> None:
    first = _say(http, conversation_id, "one")
    assert http.delete(f"/v1/responses/{first['id']}").status_code == 200

    second = _say(http, conversation_id, "two")

    assert _texts(http, conversation_id) == ["one", TEXT, "two", TEXT]
    assert http.delete(f"/v1/conversations/{conversation_id}").status_code == 200
    assert _error(_post(http, conversation_id), 404)["param"] == "conversation"
    left = http.get(f"/v1/responses/{second['id']}/input_items").json()["data"]
    assert [item["content"][0]["text"] for item in left] == ["two"]


def test_a_turn_of_a_deleted_conversation_ends_all_the_same(
    http: httpx2.Client, worker: FakeWorker, conversation_id: str
) -> None:
    _pause(worker)
    turn = _say(http, conversation_id, background=True)
    _wait_until_running(http, turn["id"])

    assert http.delete(f"/v1/conversations/{conversation_id}").status_code == 200
    worker.go.set()

    wait_until(lambda: http.get(f"/v1/responses/{turn['id']}").json()["status"] == "completed")


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"conversation": "conv_nobody"}, 404, "conversation"),
        ({"conversation": {"id": "conv_nobody"}}, 404, "conversation"),
        ({"conversation": {"id": "x", "name": "x"}}, 400, "conversation.name"),
        ({"conversation": 1}, 400, "conversation"),
        ({"previous_response_id": "resp_x"}, 400, "conversation"),
        ({"input": [{"role": "user", "content": said, "id": "x"} for said in "ab"]}, 400, "input[1].id"),
        ({"input": None}, 400, "input"),
    ],
)
def test_a_wrong_field_is_named(
    http: httpx2.Client, conversation_id: str, fields: Json, status: int, param: str
) -> None:
    body = {"model": "demo", "input": "Hi", "conversation": conversation_id, **fields}

    assert _error(http.post("/v1/responses", json=body), status)["param"] == param
    assert _items(http, conversation_id) == []


def test_a_turn_needs_no_input_where_the_conversation_has_some(
    http: httpx2.Client, worker: FakeWorker, conversation_id: str
) -> None:
    _add(http, conversation_id, {"role": "user", "content": "Hi"})

    _say(http, conversation_id, None)

    assert _texts(http, conversation_id) == ["Hi", TEXT]


def test_a_turn_is_no_previous_response(http: httpx2.Client, conversation_id: str) -> None:
    turn = _say(http, conversation_id)

    error = _error(_post(http, None, previous_response_id=turn["id"]), 400)

    assert (error["code"], error["param"]) == ("previous_response_not_found", "previous_response_id")
    assert "conversation" in error["message"]


def test_a_prompt_that_items_have_overtaken_is_made_again(
    http: httpx2.Client,
    worker: FakeWorker,
    conversation_id: str,
    monkeypatch: pytest.MonkeyPatch,
    server: Any,
) -> None:
    jobs = server.app.state.jobs
    run, num_runs = jobs.cpu_bound.run, 0

    async def run_late(work: Callable[[], object]) -> object:
        nonlocal num_runs
        num_runs += 1
        if num_runs == 1:
            with worker.database.begin() as c:
                c.execute(text("UPDATE conversation SET next_position = next_position + 5"))
        return await run(work)

    monkeypatch.setattr(jobs.cpu_bound, "run", run_late)
    _say(http, conversation_id)

    assert num_runs == 2
    assert _texts(http, conversation_id) == ["Hi", TEXT]


def test_the_same_words_again_are_another_turn(
    http: httpx2.Client, elsewhere: httpx2.Client, worker: FakeWorker, conversation_id: str
) -> None:
    first = _say(http, conversation_id, "yes")
    body = {"model": "demo", "input": "yes", "conversation": conversation_id}
    again = elsewhere.post("/v1/responses", json=body, headers={"x-stainless-retry-count": "1"}).json()
    assert again["id"] == first["id"]

    _say(http, conversation_id, "no")
    later = elsewhere.post("/v1/responses", json=body, headers={"x-stainless-retry-count": "1"}).json()

    assert later["id"] != first["id"]
    assert _texts(http, conversation_id) == ["yes", TEXT, "no", TEXT, "yes", TEXT]


def test_a_keyed_turn_is_made_once(http: httpx2.Client, conversation_id: str) -> None:
    body = {"model": "demo", "input": "Hi", "conversation": conversation_id}
    first = http.post("/v1/responses", json=body, headers={"idempotency-key": "k"}).json()
    again = http.post("/v1/responses", json=body, headers={"idempotency-key": "k"}).json()

    assert again == first
    assert len(_items(http, conversation_id)) == 2


def test_truncation_leaves_out_the_oldest_items_and_keeps_instructions(
    http: httpx2.Client, worker: FakeWorker, conversation_id: str
) -> None:
    length = manifest().context_length
    _add(http, conversation_id, {"role": "system", "content": "Stay."})
    for number in range(6):
        _add(http, conversation_id, {"role": "user", "content": f"{number} " + "word " * (4 * length)})

    assert _error(_post(http, conversation_id), 400)["code"] == "context_length_exceeded"
    started_at = time.monotonic()
    _say(http, conversation_id, truncation="auto")

    assert time.monotonic() - started_at < 10
    with_system = http.post(
        "/v1/responses",
        json={"model": "demo", "input": [{"role": "system", "content": "Stay."}, {"role": "user", "content": "Hi"}]},
    )
    assert with_system.status_code == 200
    assert worker.specs[-2].prompts == worker.specs[-1].prompts
