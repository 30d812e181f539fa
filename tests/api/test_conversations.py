"""`/v1/conversations` as the SDK calls it, on both databases."""

from typing import Any

import httpx2
import openai
import pytest

from tests.api.fake_worker import FakeWorker

HI = {"role": "user", "content": "Hi"}
CALL = {"type": "function_call", "call_id": "call_1", "name": "add", "arguments": '{"a": 1}'}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "2"}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]}


@pytest.fixture
def database_url(each_database_url: str) -> str:
    return each_database_url


def _error(answer: httpx2.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def test_a_conversation_is_created_changed_and_deleted(client: openai.OpenAI) -> None:
    made = client.conversations.create(metadata={"a": "b", "c": "d"})
    assert (made.object, made.metadata) == ("conversation", {"a": "b", "c": "d"})
    assert made.id.startswith("conv_")

    changed = client.conversations.update(made.id, metadata={"e": "f"})
    assert changed.metadata == {"e": "f"}
    assert client.conversations.retrieve(made.id) == changed

    gone = client.conversations.delete(made.id)
    assert gone.model_dump() == {"id": made.id, "object": "conversation.deleted", "deleted": True}
    for call in (client.conversations.retrieve, client.conversations.delete, client.conversations.items.list):
        with pytest.raises(openai.NotFoundError):
            call(made.id)
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.create(made.id, items=[HI])  # type: ignore[list-item]  # a message by its fields


def test_items_keep_their_types_and_parts(client: openai.OpenAI) -> None:
    items: Any = [
        HI,
        {"role": "developer", "content": [{"type": "input_text", "text": "Be short."}]},
        {"role": "assistant", "content": "Hello", "id": "msg_mine"},
        THOUGHT,
        CALL,
        OUTPUT,
        {"type": "custom_tool_call", "call_id": "call_2", "name": "run", "input": "ls"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": "a.txt"},
    ]
    conversation = client.conversations.create(items=items[:2])
    added = client.conversations.items.create(conversation.id, items=items[2:])

    assert (added.first_id, added.has_more) == ("msg_mine", False)
    found: list[Any] = list(client.conversations.items.list(conversation.id, order="asc"))
    assert [item.type for item in found] == [
        "message",
        "message",
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
    ]
    assert [part.type for item in found[:3] for part in item.content] == ["input_text", "input_text", "output_text"]
    assert (found[2].id, found[2].status, found[3].id) == ("msg_mine", "completed", "rs_1")
    assert [item.id for item in found[2:]] == [item.id for item in added.data]
    assert len({item.id for item in found}) == len(found)
    for item in found:
        assert client.conversations.items.retrieve(item.id, conversation_id=conversation.id) == item

    left = client.conversations.items.delete("msg_mine", conversation_id=conversation.id)
    assert left.id == conversation.id
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.retrieve("msg_mine", conversation_id=conversation.id)


def test_the_sdk_pages_through_all_items_while_new_ones_come(client: openai.OpenAI) -> None:
    conversation = client.conversations.create()
    for start in range(0, 45, 15):
        client.conversations.items.create(
            conversation.id,
            items=[{"role": "user", "content": str(number)} for number in range(start, start + 15)],
        )

    def read(order: Any) -> list[str]:
        texts = []
        for item in client.conversations.items.list(conversation.id, limit=7, order=order):
            assert item.type == "message"
            texts.append(item.content[0].text)  # type: ignore[union-attr]  # a text
            if len(texts) % 10 == 1:
                client.conversations.items.create(conversation.id, items=[{"role": "user", "content": "new"}])
        return [text for text in texts if text != "new"]

    expected = [str(number) for number in range(45)]
    assert read("asc") == expected
    assert read("desc") == expected[::-1]


def test_an_empty_list_has_no_ids(http: httpx2.Client) -> None:
    conversation_id = http.post("/v1/conversations", json={}).json()["id"]

    page = http.get(f"/v1/conversations/{conversation_id}/items").json()

    assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_signed_thoughts_are_shown_where_they_are_asked_for(http: httpx2.Client, worker: FakeWorker) -> None:
    made = http.post("/v1/conversations", json={"items": [THOUGHT]}).json()
    path = f"/v1/conversations/{made['id']}/items"

    refused = http.post(path, json={"items": [{"type": "reasoning", "encrypted_content": "tpt1.x"}]})

    assert _error(refused, 400)["code"] == "invalid_encrypted_content"
    assert _error(refused, 400)["param"] == "items[0].encrypted_content"
    assert http.get(path, params={"include[]": "reasoning.encrypted_content"}).json()["data"][0]["id"] == "rs_1"
    assert _error(http.get(path, params={"include": "file_search_call.results"}), 400)["param"] == "include"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"items": [HI] * 21}, "items"),
        ({"items": [{"role": "nobody", "content": ""}]}, "items[0].role"),
        ({"items": [{"type": "mcp_call"}]}, "items[0].type"),
        ({"items": [{**CALL, "arguments": "["}]}, "items[0].arguments"),
        ({"items": [{**HI, "id": "x"}, {**HI, "id": "x"}]}, "items[1].id"),
        ({"items": [{**HI, "id": "x/y"}]}, "items[0].id"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"name": "x"}, "name"),
    ],
)
def test_a_wrong_field_is_named(http: httpx2.Client, body: dict[str, object], param: str) -> None:
    assert _error(http.post("/v1/conversations", json=body), 400)["param"] == param


def test_what_changes_nothing_is_refused(http: httpx2.Client) -> None:
    path = f"/v1/conversations/{http.post('/v1/conversations', json={}).json()['id']}"

    assert _error(http.post(path, json={}), 400)["param"] == "metadata"
    assert http.post(path, json={"metadata": None}).json()["metadata"] == {}
    assert _error(http.post(f"{path}/items", json={"items": []}), 400)["param"] == "items"
    assert _error(http.get(f"{path}/items", params={"after": "msg_x"}), 400)["param"] == "after"
    assert _error(http.get(f"{path}/items", params={"limit": 101}), 400)["param"] == "limit"


def test_a_repeated_request_creates_no_second_conversation(http: httpx2.Client) -> None:
    first = http.post("/v1/conversations", json={"items": [HI]}, headers={"idempotency-key": "k"}).json()
    again = http.post("/v1/conversations", json={"items": [HI]}, headers={"idempotency-key": "k"})

    assert again.json() == first
    assert again.headers["idempotent-replayed"] == "true"
    path = f"/v1/conversations/{first['id']}/items"
    assert len(http.get(path).json()["data"]) == 1


def test_a_repeated_request_adds_its_items_once(http: httpx2.Client) -> None:
    path = f"/v1/conversations/{http.post('/v1/conversations', json={}).json()['id']}/items"

    def add() -> httpx2.Response:
        return http.post(path, json={"items": [HI, HI]}, headers={"idempotency-key": "k"})

    first = add().json()
    http.post(path, json={"items": [HI]})
    again = add()

    assert again.json() == first
    assert again.headers["idempotent-replayed"] == "true"
    assert len(http.get(path).json()["data"]) == 3
    http.delete(f"{path}/{first['first_id']}")
    assert add().json()["first_id"] != first["first_id"]
