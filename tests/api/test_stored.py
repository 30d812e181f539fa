"""Reading, listing, changing, cancelling and erasing stored jobs, on both databases."""

import httpx2
import openai
import pytest
import redis

from storage.broker.event_log import LogWriter, encode_tokens, log_key
from storage.contract import EntryKind, TokenEvent
from tests.api.examples import CALLS, CHAT, CHAT_MESSAGES, COMPLETION, NAMES, RESPONSE, Call
from tests.api.fake_worker import TEXT, FakeWorker
from tests.waiting import wait_until


@pytest.fixture
def database_url(each_database_url: str) -> str:
    return each_database_url


def test_a_job_that_nobody_has_begun_has_no_text(
    client: openai.OpenAI, worker: FakeWorker, redis_client: redis.Redis
) -> None:
    worker.die()
    response = client.responses.create(model="demo", input="Hi", background=True)

    # A worker that claims it now and is quick: its text is there when the row has been read and the log is not yet.
    entry = (TokenEvent(choice=0, token_ids=(1,), text="Hello"),)
    rows = [
        (response.id, 1, 0, EntryKind.START, b""),
        (response.id, 1, 1, EntryKind.TOKENS, encode_tokens(entry)),
    ]
    LogWriter(redis_client, "quick").append(rows)

    shown = client.responses.retrieve(response.id)
    assert (shown.status, shown.output_text) == ("queued", "")


def test_a_background_response_is_cancelled_once_and_stays_so(client: openai.OpenAI, worker: FakeWorker) -> None:
    worker.pauses_at = 3
    job_id = client.responses.create(model="demo", input="Hi", background=True).id
    wait_until(lambda: client.responses.retrieve(job_id).output_text == "Hello ")

    cancelled = client.responses.cancel(job_id)
    again = client.responses.cancel(job_id)

    assert cancelled.status == again.status == "cancelled"
    assert cancelled.output_text == again.output_text == "Hello "
    assert client.responses.retrieve(job_id) == cancelled


def test_a_queued_response_is_cancelled_without_a_worker(client: openai.OpenAI, worker: FakeWorker) -> None:
    worker.die()
    job_id = client.responses.create(model="demo", input="Hi", background=True).id

    assert client.responses.cancel(job_id).status == "cancelled"
    events = list(client.responses.retrieve(job_id, stream=True))
    assert events[-1].type == "response.incomplete"


def test_only_background_responses_can_be_cancelled(http: httpx2.Client) -> None:
    job_id = RESPONSE.post(http).json()["id"]

    refused = http.post(f"{RESPONSE.url_of(job_id)}/cancel")

    assert refused.status_code == 400


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_an_erased_job_is_gone_with_its_log(
    http: httpx2.Client, redis_client: redis.Redis, worker: FakeWorker, call: Call
) -> None:
    job_id = call.post(http, store=True).headers["x-job-id"]

    erased = http.delete(call.url_of(job_id))

    assert erased.json() == {"id": job_id, "object": erased.json()["object"], "deleted": True}
    assert http.get(call.url_of(job_id)).status_code == 404
    assert http.delete(call.url_of(job_id)).status_code == 404
    assert not redis_client.exists(log_key(job_id))


def test_a_running_job_that_is_erased_leaves_nothing_behind(
    http: httpx2.Client, redis_client: redis.Redis, worker: FakeWorker
) -> None:
    worker.pauses_at = 4
    job_id = RESPONSE.post(http, background=True).json()["id"]
    wait_until(lambda: "Hello" in http.get(RESPONSE.url_of(job_id)).text)

    with http.stream("GET", RESPONSE.url_of(job_id), params={"stream": "true"}) as follower:
        http.delete(RESPONSE.url_of(job_id))
        rest = follower.read()
    worker.go.set()

    assert rest.endswith(b"data: [DONE]\n\n")
    wait_until(lambda: worker.num_finished == 1)
    [(_, fields)] = redis_client.xrange(log_key(job_id))  # type: ignore[misc]
    assert fields[b"k"] == b"2"
    assert 0 < redis_client.ttl(log_key(job_id)) <= 60


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_a_job_is_only_found_where_its_kind_lives(http: httpx2.Client, call: Call) -> None:
    job_id = call.post(http).headers["x-job-id"]

    for other in CALLS:
        answer = http.get(other.url_of(job_id))
        assert answer.status_code == (200 if other is call else 404)


def test_a_completion_is_found_under_both_its_names(http: httpx2.Client) -> None:
    job_id = COMPLETION.post(http).json()["id"]

    asynchronous = http.get(f"/v1/async/completions/{job_id}").json()
    plain = http.get(COMPLETION.url_of(job_id)).json()

    assert "status" not in plain
    assert asynchronous == plain | {"status": "completed"}


def test_input_items_come_in_pages(client: openai.OpenAI) -> None:
    items = [{"role": "user", "content": f"Say {number}"} for number in range(5)]
    job_id = client.responses.create(model="demo", input=items).id  # type: ignore[arg-type]

    newest = client.responses.input_items.list(job_id, limit=2)
    every = list(client.responses.input_items.list(job_id, limit=2))
    oldest = client.responses.input_items.list(job_id, order="asc", limit=1)

    assert [item.content[0].text for item in newest.data] == ["Say 4", "Say 3"]  # type: ignore[union-attr]
    assert len(every) == 5
    assert oldest.data[0].content[0].text == "Say 0"  # type: ignore[union-attr]
    assert oldest.has_more


def test_input_tokens_are_counted_without_a_job(client: openai.OpenAI, worker: FakeWorker) -> None:
    counted = client.responses.input_tokens.count(model="demo", input="Hi")
    response = client.responses.create(model="demo", input="Hi")

    assert response.usage is not None
    assert counted.input_tokens == response.usage.input_tokens
    assert worker.num_claimed == 1


def test_stored_chats_are_listed_changed_and_read(client: openai.OpenAI) -> None:
    def ask(**fields: object) -> str:
        return client.chat.completions.create(model="demo", messages=CHAT_MESSAGES, **fields).id  # type: ignore[call-overload,no-any-return]

    unstored = ask()
    kept = [ask(store=True, metadata={"place": '\u00e4 "here"', "n": str(number)}) for number in range(3)]

    assert [chat.id for chat in client.chat.completions.list(limit=2)] == kept
    assert [chat.id for chat in client.chat.completions.list(order="desc")] == kept[::-1]
    assert [chat.id for chat in client.chat.completions.list(metadata={"place": '\u00e4 "here"', "n": "1"})] == [
        kept[1]
    ]
    assert list(client.chat.completions.list(model="other")) == []
    assert client.chat.completions.retrieve(unstored).choices[0].message.content == TEXT

    changed = client.chat.completions.update(kept[0], metadata={"n": "9"})
    assert changed.metadata == {"n": "9"}  # type: ignore[attr-defined]
    assert [chat.id for chat in client.chat.completions.list(metadata={"n": "9"})] == [kept[0]]
    assert [message.content for message in client.chat.completions.messages.list(kept[0])] == ["Hi"]


def test_stored_responses_are_listed(http: httpx2.Client, worker: FakeWorker) -> None:
    def ask(**fields: object) -> str:
        return RESPONSE.post(http, **fields).headers["x-job-id"]

    ask(store=False)
    CHAT.post(http, store=True)
    kept = [ask(metadata={"place": '\u00e4 "here"', "n": str(number)}) for number in range(3)]
    worker.die()
    waiting = ask(background=True)

    def listed(**query: object) -> list[str]:
        answer = http.get("/v1/responses", params=query)  # type: ignore[arg-type]  # a query by name
        assert answer.status_code == 200, answer.text
        return [response["id"] for response in answer.json()["data"]]

    assert listed() == [waiting, *kept[::-1]]
    page = http.get("/v1/responses", params={"limit": 2}).json()
    assert (page["first_id"], page["last_id"], page["has_more"]) == (waiting, kept[2], True)
    assert listed(limit=2, after=kept[2]) == [kept[1], kept[0]]
    assert listed(order="asc") == [*kept, waiting]
    assert listed(**{"metadata[n]": "1", "metadata[place]": '\u00e4 "here"'}) == [kept[1]]
    assert listed(status="queued") == [waiting]
    assert listed(status="completed", model="demo") == kept[::-1]
    assert listed(model="other") == []
    whole = http.get(f"/v1/responses/{kept[0]}").json()
    assert http.get("/v1/responses", params={"order": "asc"}).json()["data"][0] == whole
    for query in ({"status": "done"}, {"limit": 0}, {"order": "up"}, {"metadata": "x"}):
        assert http.get("/v1/responses", params=query).json()["error"]["param"] == next(iter(query))


def test_a_text_full_of_odd_characters_is_stored_and_read_back(http: httpx2.Client) -> None:
    odd = 'NUL \x00, tab \t, \u2028, emoji \U0001f600, quote " and \\'
    answer = RESPONSE.post(http, input=odd, instructions=odd)

    items = http.get(f"{RESPONSE.url_of(answer.json()['id'])}/input_items").json()["data"]

    assert answer.json()["instructions"] == odd
    assert items[0]["content"][0]["text"] == odd
    assert CHAT.post(http, messages=[{"role": "user", "content": odd}]).status_code == 200
