"""`/v1/batches` without a CPU worker: what is accepted, by whom it is seen, and what is refused."""

from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from sqlalchemy import select, update

from api.batches.inline_requests import InlineInputs
from storage.accounts import keys
from storage.batches import batch_lines, batch_rows
from storage.batches.batch_states import BatchStatus, LineStatus
from storage.batches.tables import BatchLine
from storage.database.bulk_insert import BulkInserts
from storage.database.connections import Database
from storage.database.table_definitions import table_of
from storage.errors import FileStorageFull
from storage.files.content_store import DatabaseContent
from storage.files.tables import File
from tests.api.server import PEPPER

_ENDPOINT = "/v1/chat/completions"
NOW = datetime.now(UTC)


@pytest.fixture
def database_url(each_database_url: str) -> str:
    return each_database_url


def _request(custom_id: str = "a") -> dict[str, Any]:
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}]}
    return {"custom_id": custom_id, "method": "POST", "url": _ENDPOINT, "body": body}


def _body(**changes: object) -> dict[str, object]:
    return {"endpoint": _ENDPOINT, "completion_window": "24h", "requests": [_request()]} | changes


def _create(http: httpx2.Client, **headers: str) -> dict[str, Any]:
    answer = http.post("/v1/batches", json=_body(), headers=headers)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


def _end(database: Database, batch_id: str, *statuses: LineStatus) -> None:
    """Let the batch be over, with lines of these statuses."""
    lines = [
        BatchLine(
            batch_id=batch_id,
            line=number,
            custom_id=f"id-{number}",
            position=number,
            model="demo",
            offset=0,
            length=1,
            status=LineStatus.QUEUED,
        )
        for number, _ in enumerate(statuses, start=1)
    ]
    table = table_of(BatchLine)
    with database.begin() as c:
        batch_lines.insert_lines(c, BulkInserts(), lines)
        for number, status in enumerate(statuses, start=1):
            c.execute(update(table).where(table.c.line == number).values(status=status))
        batch = batch_rows.find(c, batch_id)
        assert batch is not None
        assert batch_rows.begin(c, batch, NOW)
        batch = batch_rows.find(c, batch_id)
        assert batch is not None
        num_completed = statuses.count(LineStatus.COMPLETED)
        values = {"num_lines": len(lines), "num_completed": num_completed}
        assert batch_rows.end(c, batch, BatchStatus.COMPLETED, NOW, **values)


def test_a_batch_is_validating_and_holds_its_file(http: httpx2.Client) -> None:
    made = _create(http)

    assert (made["object"], made["status"], made["endpoint"]) == ("batch", "validating", _ENDPOINT)
    assert made["expires_at"] - made["created_at"] == 86400
    assert made["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert http.get(f"/v1/batches/{made['id']}").json() == made
    held = http.delete(f"/v1/files/{made['input_file_id']}")
    assert (held.status_code, held.json()["error"]["code"]) == (409, "file_in_use")


def test_a_repeated_create_call_gets_the_same_batch(http: httpx2.Client) -> None:
    first, second = (_create(http, **{"idempotency-key": "k"}) for _ in range(2))

    assert first["id"] == second["id"]
    assert len(http.get("/v1/batches").json()["data"]) == 1


def test_batches_of_another_owner_are_not_found(http: httpx2.Client, database: Database) -> None:
    made = _create(http)
    with database.begin() as c:
        other = keys.create(c, "bob", pepper=PEPPER, now=NOW).plaintext
    bob = {"authorization": f"Bearer {other}"}

    for method, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/retry"), ("GET", "/requests")):
        answer = http.request(method, f"/v1/batches/{made['id']}{path}", headers=bob)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path
    assert http.get("/v1/batches", headers=bob).json()["data"] == []
    # Nor can another's file be the input.
    wanted = {"endpoint": _ENDPOINT, "completion_window": "24h", "input_file_id": made["input_file_id"]}
    assert http.post("/v1/batches", json=wanted, headers=bob).status_code == 404


def test_pages_of_batches_hold_each_once(http: httpx2.Client) -> None:
    made = [_create(http)["id"] for _ in range(5)]

    seen: list[str] = []
    page = http.get("/v1/batches?limit=2").json()
    seen += [one["id"] for one in page["data"]]
    while page["has_more"]:
        page = http.get(f"/v1/batches?limit=2&after={page['last_id']}").json()
        seen += [one["id"] for one in page["data"]]

    assert seen == made[::-1]


def test_cancelling_twice_is_the_same(http: httpx2.Client) -> None:
    made = _create(http)

    first, second = (http.post(f"/v1/batches/{made['id']}/cancel") for _ in range(2))

    assert (first.status_code, first.json()["status"]) == (200, "cancelling")
    assert second.json() == first.json()


def test_requests_of_a_batch_are_listed_by_status(http: httpx2.Client, database: Database) -> None:
    batch_id = _create(http)["id"]
    assert http.get(f"/v1/batches/{batch_id}/requests").json()["data"] == []
    _end(database, batch_id, LineStatus.COMPLETED, LineStatus.FAILED, LineStatus.EXPIRED)

    everything = http.get(f"/v1/batches/{batch_id}/requests").json()["data"]
    failed = http.get(f"/v1/batches/{batch_id}/requests?status=failed").json()["data"]
    rest = http.get(f"/v1/batches/{batch_id}/requests?after={everything[0]['id']}").json()["data"]

    assert [one["line"] for one in everything] == [1, 2, 3]
    assert [one["custom_id"] for one in failed] == ["id-2"]
    assert rest == everything[1:]
    for query, param in (("status=odd", "status"), ("after=batch_req_1", "after")):
        refused = http.get(f"/v1/batches/{batch_id}/requests?{query}")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_what_did_not_succeed_can_be_tried_again(http: httpx2.Client, database: Database) -> None:
    batch_id = _create(http)["id"]
    early = http.post(f"/v1/batches/{batch_id}/retry")
    assert (early.status_code, early.json()["error"]["code"]) == (409, "conflict")
    _end(database, batch_id, LineStatus.COMPLETED, LineStatus.CANCELLED)

    again = http.post(f"/v1/batches/{batch_id}/retry", json={"completion_window": "2h"}).json()

    assert (again["status"], again["retry_of"], again["completion_window"]) == ("validating", batch_id, "2h")
    assert http.get(f"/v1/batches/{batch_id}").json()["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    late = http.post(f"/v1/batches/{batch_id}/cancel")
    assert (late.status_code, late.json()["error"]["code"]) == (409, "conflict")


def test_nothing_to_retry_is_said(http: httpx2.Client, database: Database) -> None:
    batch_id = _create(http)["id"]
    _end(database, batch_id, LineStatus.COMPLETED)

    refused = http.post(f"/v1/batches/{batch_id}/retry")

    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "nothing_to_retry")


def test_an_owner_has_so_many_open_batches(http: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_rows, "MAX_OPEN_BATCHES", 2)
    for _ in range(2):
        _create(http)

    refused = http.post("/v1/batches", json=_body())

    assert refused.status_code == 400
    assert "limit" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"requests": [_request(str(number)) for number in range(1001)]}, "requests"),
        ({"requests": [5]}, "requests[0]"),
        ({"requests": [_request() | {"url": "/v1/responses"}]}, "requests[0].url"),
        ({"requests": [_request() | {"body": {"model": "nobody"}}]}, "requests[0].body.model"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 5}}, "output_expires_after.seconds"),
        ({"metadata": {"a": 1}}, "metadata.a"),
    ],
)
def test_a_body_that_is_wrong_is_refused_by_its_field(
    http: httpx2.Client, changes: dict[str, object], param: str
) -> None:
    refused = http.post("/v1/batches", json=_body(**changes))

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_requests_of_which_no_batch_is_made_leave_no_file(
    http: httpx2.Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        _create(http, **{"idempotency-key": "k"})
    monkeypatch.setattr(batch_rows, "MAX_OPEN_BATCHES", 1)
    assert http.post("/v1/batches", json=_body()).status_code == 400

    file = table_of(File)
    with database.connect() as c:
        unfinished = c.execute(select(file.c.id).where(file.c.finished_at.is_(None), file.c.deleted_at.is_(None))).all()
    assert unfinished == []


def test_requests_in_the_body_count_as_stored_files(database: Database) -> None:
    inputs = InlineInputs(database, DatabaseContent(database), max_stored_bytes=2)
    inputs.write("alice", [b"{}"], NOW)

    with pytest.raises(FileStorageFull):
        inputs.write("alice", [b"{}"], NOW)
    inputs.write("bob", [b"{}"], NOW)


def test_an_unknown_input_file_is_named(http: httpx2.Client) -> None:
    body = {"endpoint": _ENDPOINT, "completion_window": "24h", "input_file_id": "file-0"}

    refused = http.post("/v1/batches", json=body)

    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "input_file_id")


@pytest.mark.parametrize("path", ["/v1/batches", "/v1/files", "/v1/responses", "/v1/chat/completions"])
@pytest.mark.parametrize("after", ["zz", "\x00", "x" * 200])
def test_a_cursor_that_cannot_be_an_id_is_refused(http: httpx2.Client, path: str, after: str) -> None:
    refused = http.get(path, params={"after": after})

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "after")
