"""Chains of responses: a turn stores what is new and its parent; the conversation is put together when it is read."""

import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import httpx2
import pytest
from sqlalchemy import Connection, text

from api.jobs.job_views import previous_turn
from api.settings import ApiSettings
from storage.contract import JobKind, JobStatus, Result
from storage.database.connections import Database
from storage.jobs import jobs, recovery
from tests.api.fake_worker import TEXT, FakeWorker
from tests.api.server import Server, serving
from tests.storage.examples import NOW, USAGE, after, put_job

SAID = "x" * 20_000
# Much is said and little of it is in the prompt: truncation keeps the last message.
LARGE = [{"role": "user", "content": SAID}, {"role": "user", "content": "Hi"}]


def _create(http: httpx2.Client, **fields: object) -> str:
    answer = http.post("/v1/responses", json={"model": "demo", **fields})
    assert answer.status_code == 200, answer.text
    response_id: str = answer.json()["id"]
    return response_id


def _error(http: httpx2.Client, **fields: object) -> dict[str, Any]:
    answer = http.post("/v1/responses", json={"model": "demo", **fields})
    assert answer.status_code == 400, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def _texts(http: httpx2.Client, response_id: str) -> list[str]:
    """What the input items of a response say, the oldest first."""
    page = http.get(f"/v1/responses/{response_id}/input_items", params={"order": "asc", "limit": 100}).json()
    assert len({item["id"] for item in page["data"]}) == len(page["data"])
    return [item["content"][0]["text"] for item in page["data"]]


def _stored_bytes(worker: FakeWorker) -> list[int]:
    query = "SELECT length(CAST(request AS TEXT)) + length(CAST(context AS TEXT)) FROM job_input ORDER BY job_id"
    with worker.database.connect() as c:
        return list(c.execute(text(query)).scalars())


def test_a_turn_stores_what_is_new_and_lists_the_whole_chain(http: httpx2.Client, worker: FakeWorker) -> None:
    previous = None
    for _ in range(5):
        previous = _create(http, input=LARGE, previous_response_id=previous, truncation="auto")

    assert previous is not None
    assert _texts(http, previous) == [SAID, "Hi", TEXT] * 4 + [SAID, "Hi"]
    assert max(_stored_bytes(worker)) < 1.1 * len(SAID)


def test_a_child_is_read_and_continued_when_its_parents_are_gone(http: httpx2.Client, worker: FakeWorker) -> None:
    first = _create(http, input="one")
    second = _create(http, input="two", previous_response_id=first)
    third = _create(http, input="three", previous_response_id=second)
    listed = http.get(f"/v1/responses/{third}/input_items").content

    assert http.delete(f"/v1/responses/{first}").status_code == 200
    with worker.database.begin() as c:
        # As retention does it.
        recovery.erase_many(c, [second])

    assert http.get(f"/v1/responses/{third}/input_items").content == listed
    fourth = _create(http, input="four", previous_response_id=third)
    assert _texts(http, fourth) == ["one", TEXT, "two", TEXT, "three", TEXT, "four"]
    assert worker.specs[-1].prompts[0][: len(worker.specs[-2].prompts[0])] == worker.specs[-2].prompts[0]
    assert _error(http, input="more", previous_response_id=second)["code"] == "previous_response_not_found"
    assert http.get(f"/v1/responses/{first}").status_code == 404

    for response_id in (third, fourth):
        http.delete(f"/v1/responses/{response_id}")
    assert _stored_bytes(worker) == []


def test_a_response_that_is_not_stored_cannot_be_continued(http: httpx2.Client) -> None:
    unstored = _create(http, input="one", store=False)

    error = _error(http, input="two", previous_response_id=unstored)

    assert (error["code"], error["param"]) == ("previous_response_not_found", "previous_response_id")
    counted = http.post("/v1/responses/input_tokens", json={"model": "demo", "previous_response_id": unstored})
    assert counted.status_code == 400


def test_a_response_that_is_not_stored_may_continue_one(http: httpx2.Client) -> None:
    first = _create(http, input="one")
    second = _create(http, input="two", previous_response_id=first, store=False)
    assert _texts(http, second) == ["one", TEXT, "two"]


@pytest.fixture
def small_chains(settings: ApiSettings, worker: FakeWorker) -> Any:
    """An API whose chains hold 50 kB at most."""
    with serving(settings.model_copy(update={"max_chain_bytes": 50_000})) as running:
        yield running


def test_a_chain_has_a_bound_in_bytes(small_chains: Server) -> None:
    with httpx2.Client(base_url=small_chains.url, trust_env=False, timeout=20) as http:
        first = _create(http, input=LARGE, truncation="auto")
        second = _create(http, input=LARGE, previous_response_id=first, truncation="auto")
        error = _error(http, input=LARGE, previous_response_id=second, truncation="auto")
        short = _create(http, input="short", previous_response_id=second, truncation="auto")

    assert (error["code"], error["param"]) == ("context_too_large", "previous_response_id")
    assert short


def test_a_parent_that_is_erased_while_it_is_continued_is_not_found(
    http: httpx2.Client, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _create(http, input="one")
    rows_of = jobs.rows_of

    def erase_first(*arguments: Any) -> Any:
        database: Database = worker.database
        with database.begin() as c:
            recovery.erase_many(c, [first])
        return rows_of(*arguments)

    monkeypatch.setattr("storage.jobs.jobs.rows_of", erase_first)

    error = _error(http, input="two", previous_response_id=first)

    assert error["code"] == "previous_response_not_found"


def test_a_truncated_prompt_is_that_of_the_whole_conversation(http: httpx2.Client, worker: FakeWorker) -> None:
    """Each turn exceeds the context; the first and the third bring instructions for all that follow."""
    brief, polite = ({"role": "system", "content": content} for content in ("Be brief.", "Be polite."))
    said = [[brief, *LARGE], LARGE, [polite, *LARGE], LARGE, [{"role": "user", "content": "Go on"}]]
    previous = None
    for messages in said:
        previous = _create(http, input=messages, previous_response_id=previous, truncation="auto")

    reply = {"role": "assistant", "content": TEXT}
    whole = [message for messages in said for message in (*messages, reply)][:-1]
    _create(http, input=whole, truncation="auto")

    assert worker.specs[-1].prompts == worker.specs[-2].prompts
    assert len(worker.specs[-1].prompts[0]) > len("Be brief.Be polite.HiGo on")


def _put_chain(c: Connection, texts: Sequence[str]) -> str:
    """The last response of a chain: each said one text and got no answer. The first brings instructions."""
    system = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be brief."}]}
    job_id, chain_bytes = None, 0
    for number, said in enumerate(texts):
        items = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": said}]}]
        context = {"previous_output": [], "system_items": [system], "input_items": items}
        chain_bytes += len(said)
        job_id = put_job(
            c,
            job_id=f"resp_{number:032}",
            kind=JobKind.RESPONSE,
            request={"model": "demo"},
            context={"input_items": [system, *items]} if job_id is None else context,
            parent_id=job_id,
            chain_bytes=chain_bytes,
        )
    assert job_id is not None
    claim = jobs.claim(c, job_id, "w", NOW)
    assert claim is not None
    jobs.complete(c, job_id, claim.attempt, status=JobStatus.COMPLETED, result=Result(), usage=USAGE, now=after(1))
    return job_id


def _peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_truncated_turn_reads_of_a_large_chain_what_its_context_holds(sqlite_database: Database) -> None:
    """Sixteen megabytes in forty turns; a context of 20,000 tokens holds the last of them."""
    with sqlite_database.begin() as c:
        last = _put_chain(c, [f"{number:02}" + "x" * 400_000 for number in range(40)])
        read = partial(previous_turn, c, last, "alice", max_bytes=64_000_000)

        previous = read(context_length=20_000)
        texts = [item["content"][0]["text"] for item in previous.input_items]  # type: ignore[index]  # of a message
        truncated_bytes, whole_bytes = _peak_bytes(partial(read, context_length=20_000)), _peak_bytes(read)

    assert [text[:9] for text in texts] == ["Be brief.", "39xxxxxxx"]
    assert previous.system_items == [
        {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be brief."}]}
    ]
    # The job is read with its own text, and the chain again.
    assert truncated_bytes < 4_000_000
    assert whole_bytes > 16_000_000


def test_a_long_chain_is_read_in_pages(http: httpx2.Client, worker: FakeWorker) -> None:
    """Two hundred turns, each continuing the one before it."""
    first = _create(http, input="one")
    with worker.database.begin() as c:
        for number in range(200):
            c.execute(
                text(
                    "INSERT INTO job_input (job_id, parent_id, chain_bytes, spec_kind, spec_version, request, context,"
                    " spec) SELECT :id, :parent, chain_bytes, spec_kind, spec_version, request, context, spec"
                    " FROM job_input WHERE job_id = :first"
                ),
                {
                    "id": f"resp_{number:05}",
                    "parent": first if number == 0 else f"resp_{number - 1:05}",
                    "first": first,
                },
            )
        c.execute(text("UPDATE job_input SET parent_id = 'resp_00199' WHERE job_id = :first"), {"first": first})
        c.execute(text("UPDATE job_input SET parent_id = NULL WHERE job_id = 'resp_00000'"))
    started = time.perf_counter()
    assert len(_texts(http, first)) == 100
    assert time.perf_counter() - started < 5
