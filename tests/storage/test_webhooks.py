"""Endpoints and their secrets, events handed out, deliveries that people look at and start again."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from msgspec import structs
from sqlalchemy import Connection, event, func, insert, select
from structlog.testing import capture_logs

from storage.contract import JobKind, JobStatus
from storage.database.connections import Database
from storage.database.table_definitions import table_of
from storage.jobs import jobs
from storage.webhooks import deliveries, delivery_queue, endpoints, events
from storage.webhooks.deliveries import Redelivered, Span
from storage.webhooks.delivery_queue import Attempt, Verdict
from storage.webhooks.errors import WebhookDeliveryNotFound, WebhookEndpointDisabled, WebhookEndpointNotFound
from storage.webhooks.event_types import EVENT_TYPES
from storage.webhooks.events import EndedJob
from storage.webhooks.tables import DeliveryStatus, WebhookDelivery, WebhookEndpoint, WebhookEvent
from tests.storage.examples import NOW, after, put_delivery, put_endpoint, put_job

DELIVERED = Verdict(status=DeliveryStatus.DELIVERED)
_NOTHING = Redelivered()
OK = Attempt(started_at=NOW, latency_ms=3, status_code=200, answer="thanks")


@pytest.fixture
def c(database: Database) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


def _ended(c: Connection, **changes: Any) -> str:
    """A cancelled job whose event is written."""
    job_id = put_job(c, **changes)
    assert jobs.cancel(c, job_id, after(5))
    return job_id


def _events(c: Connection) -> list[Any]:
    return list(c.execute(select(table_of(WebhookEvent)).order_by("id")).all())


def _deliveries(c: Connection, **filters: Any) -> list[WebhookDelivery]:
    return deliveries.list_deliveries(c, "alice", is_newest_first=False, **filters)


def _send(c: Connection, delivery: WebhookDelivery, attempt: Attempt = OK, verdict: Verdict = DELIVERED) -> None:
    destination = delivery_queue.Destination(owner=delivery.owner, host=delivery.host)
    [sending] = delivery_queue.claim(c, destination, after(10), after(60), limit=1)
    assert sending.delivery_id == delivery.id
    delivery_queue.settle(c, sending, attempt, verdict, after(11))


def _redeliver(
    c: Connection,
    endpoint: WebhookEndpoint,
    *,
    since: datetime = NOW,
    status: DeliveryStatus | None = None,
    so_far: Redelivered = _NOTHING,
    limit: int = 2000,
) -> Redelivered:
    """All of alice's endpoint until `after(30)`."""
    span = Span(endpoint_id=endpoint.id, owner="alice", since=since, until=after(30), status=status)
    return deliveries.redeliver_span(c, span, so_far, limit=limit)


def test_an_endpoint_is_read_as_it_was_written_and_by_its_owner_alone(c: Connection) -> None:
    made = put_endpoint(c, event_types=["response.completed"])

    read = endpoints.get_endpoint(c, made.id, "alice")
    assert read.model_dump() == made.model_dump()
    assert read.created_at == NOW
    for endpoint_id, owner in ((made.id, "bob"), ("we_absent", "alice"), ("\0", "alice")):
        with pytest.raises(WebhookEndpointNotFound):
            endpoints.get_endpoint(c, endpoint_id, owner)


def test_endpoints_are_listed_in_pages(c: Connection) -> None:
    ids = [put_endpoint(c, endpoint_id=f"we_{number}").id for number in range(4)]
    put_endpoint(c, owner="bob")

    def listed(**options: Any) -> list[str]:
        return [endpoint.id for endpoint in endpoints.list_endpoints(c, "alice", **options)]

    assert listed() == ids
    assert listed(limit=2) == ids[:2]
    assert listed(after=ids[1]) == ids[2:]
    assert listed(after=ids[2], is_newest_first=True) == ids[1::-1]
    assert listed(after="\0") == []


def test_an_endpoint_is_changed_field_by_field(c: Connection) -> None:
    made = put_endpoint(c)
    changed = endpoints.update_endpoint(c, made.id, "alice", name="other", now=after(1))
    assert (changed.name, changed.url, changed.event_types, changed.updated_at) == ("other", made.url, [], after(1))

    changed = endpoints.update_endpoint(
        c, made.id, "alice", event_types=["response.failed"], is_enabled=False, now=after(2)
    )
    assert (changed.event_types, changed.disabled_at) == (["response.failed"], after(2))
    assert changed.disabled_reason == endpoints.BY_OWNER
    changed = endpoints.update_endpoint(c, made.id, "alice", is_enabled=True, now=after(3))
    assert (changed.disabled_at, changed.disabled_reason) == (None, None)
    with pytest.raises(WebhookEndpointNotFound):
        endpoints.update_endpoint(c, made.id, "bob", name="x", now=NOW)


def test_what_waits_follows_an_endpoint_that_moves(c: Connection) -> None:
    endpoint = put_endpoint(c)
    done, waiting = put_delivery(c, endpoint), put_delivery(c, endpoint)
    _send(c, done)

    endpoints.update_endpoint(c, endpoint.id, "alice", url="https://new.example:444/x", now=after(20))

    assert [(row.url, row.host) for row in _deliveries(c)] == [
        (endpoint.url, "example.com"),
        ("https://new.example:444/x", "new.example:444"),
    ]
    _redeliver(c, endpoint)
    assert {row.host for row in _deliveries(c)} == {"new.example:444"}
    assert waiting.id == _deliveries(c)[1].id


def test_a_delivery_is_sent_again_to_the_present_url_of_its_endpoint(c: Connection) -> None:
    endpoint = put_endpoint(c)
    done, own = put_delivery(c, endpoint), put_delivery(c, endpoint, endpoint_id=None)
    for delivery in (done, own):
        _send(c, delivery)
    endpoints.update_endpoint(c, endpoint.id, "alice", url="https://new.example/x", now=after(20))

    again = deliveries.redeliver(c, done.id, "alice", after(30))

    assert (again.url, again.host) == ("https://new.example/x", "new.example")
    assert deliveries.redeliver(c, own.id, "alice", after(30)).url == endpoint.url


def test_a_deleted_or_disabled_endpoint_receives_nothing_more(c: Connection) -> None:
    deleted, disabled = put_endpoint(c, url="https://a.example/"), put_endpoint(c, url="https://b.example/")
    rows = [put_delivery(c, endpoint) for endpoint in (deleted, disabled)]

    endpoints.delete_endpoint(c, deleted.id, "alice", after(1))
    endpoints.update_endpoint(c, disabled.id, "alice", is_enabled=False, now=after(1))

    assert [(row.status, row.ended_at) for row in _deliveries(c)] == [(DeliveryStatus.DEAD, after(1))] * 2
    with pytest.raises(WebhookEndpointNotFound):
        endpoints.delete_endpoint(c, deleted.id, "alice", after(1))
    with pytest.raises(WebhookEndpointNotFound):
        deliveries.redeliver(c, rows[0].id, "alice", after(2))
    with pytest.raises(WebhookEndpointDisabled):
        deliveries.redeliver(c, rows[1].id, "alice", after(2))
    with pytest.raises(WebhookEndpointDisabled):
        _redeliver(c, disabled)


def test_a_rotated_secret_signs_beside_the_new_one_until_its_time(c: Connection) -> None:
    endpoint = put_endpoint(c)
    rotated = endpoints.rotate_secret(
        c, endpoint.id, "alice", secret="whsec_new", keep_old_until=after(60), now=after(1)
    )
    assert endpoints.secrets_of(rotated, after(59)) == ("whsec_new", endpoint.secret)
    assert endpoints.secrets_of(rotated, after(60)) == ("whsec_new",)

    rotated = endpoints.rotate_secret(c, endpoint.id, "alice", secret="whsec_newer", keep_old_until=None, now=after(2))
    assert endpoints.secrets_of(rotated, after(3)) == ("whsec_newer",)


def test_an_owner_has_one_default_secret(c: Connection) -> None:
    assert endpoints.default_secret(c, "alice", "whsec_1", NOW) == "whsec_1"
    assert endpoints.default_secret(c, "alice", "whsec_2", NOW) == "whsec_1"
    assert endpoints.default_secret(c, "bob", "whsec_3", NOW) == "whsec_3"


def test_the_types_are_those_of_the_three_protocols_and_of_batches() -> None:
    assert len(EVENT_TYPES) == 4 * len(JobKind) + 4
    assert {"response.completed", "chat.completion.failed", "completion.cancelled"} <= set(EVENT_TYPES)


def _emit_failed(c: Connection, job_id: str, now: datetime) -> None:
    job = jobs.find_summary(c, job_id)
    assert job is not None
    ended = EndedJob(job_id=job_id, owner=job.owner, kind=job.kind, status=JobStatus.FAILED, target=job.webhook)
    events.emit(c, ended, now)


def test_an_event_is_written_only_where_somebody_listens(c: Connection) -> None:
    put_endpoint(c, owner="bob")
    disabled = put_endpoint(c)
    endpoints.update_endpoint(c, disabled.id, "alice", is_enabled=False, now=NOW)
    job_id = put_job(c)
    own = put_job(c, webhook={"url": "https://example.com/"}, kind=JobKind.RESPONSE)

    for one in (job_id, own):
        jobs.cancel(c, one, after(5))

    [event] = _events(c)
    assert (event.owner, event.type, event.job_id) == ("alice", "response.cancelled", own)
    assert (event.created_at, event.is_fanned_out, event.id[:4]) == (after(5), False, "evt_")
    assert event.target == {"url": "https://example.com/"}


def test_events_are_handed_out_to_all_who_want_them(c: Connection) -> None:
    everything = put_endpoint(c)
    picky = put_endpoint(c, event_types=["completion.failed"])
    put_endpoint(c, event_types=["response.failed"])
    put_endpoint(c, owner="bob")
    own = {"url": "https://own.example:444/", "events": ["completion.failed"], "secret": "whsec_own"}
    deaf = {"url": "https://deaf.example/", "events": ["completion.completed"]}
    plain = {"url": "https://plain.example/", "events": None}
    ids = [put_job(c, kind=JobKind.COMPLETION, webhook=target) for target in (own, deaf, plain)]
    for job_id in ids:
        _emit_failed(c, job_id, after(5))

    assert events.has_new(c)
    assert events.fan_out(c, after(6)) == 3
    assert events.fan_out(c, after(6)) == 0
    assert not events.has_new(c)

    rows = _deliveries(c)
    assert len(rows) == 8
    for job_id in ids:
        assert {row.endpoint_id for row in rows if row.job_id == job_id} >= {everything.id, picky.id}
    [with_secret, without] = sorted((row for row in rows if row.endpoint_id is None), key=lambda row: row.url)
    assert (with_secret.url, with_secret.host, with_secret.secret) == (own["url"], "own.example:444", "whsec_own")
    assert without.secret == endpoints.default_secret(c, "alice", "whsec_unused", NOW)
    assert (with_secret.created_at, with_secret.next_attempt_at) == (after(5), after(6))
    assert {row.status for row in rows} == {DeliveryStatus.PENDING}
    assert [event.target for event in _events(c)] == [None] * 3


def test_events_are_handed_out_in_batches_oldest_first(c: Connection) -> None:
    put_endpoint(c)
    for seconds in (3, 1, 2):
        _emit_failed(c, put_job(c), after(seconds))

    assert events.fan_out(c, after(6), limit=2) == 2
    assert sorted(row.created_at for row in _deliveries(c)) == [after(1), after(2)]
    assert events.fan_out(c, after(6), limit=2) == 1


@pytest.mark.parametrize("bad", [{"link": "x"}, {"url": 7}, {"url": "https://[::1"}, "https://example.com/"])
def test_a_target_that_cannot_be_read_keeps_no_other_from_its_events(c: Connection, bad: Any) -> None:
    everything = put_endpoint(c)
    broken = put_job(c, webhook=bad)
    sound = put_job(c, webhook={"url": "https://own.example/"})
    for number, job_id in enumerate((broken, sound)):
        _emit_failed(c, job_id, after(number))

    with capture_logs() as said:
        assert events.fan_out(c, after(6)) == 2

    reported = {(row.job_id, row.endpoint_id) for row in _deliveries(c)}
    assert reported == {(broken, everything.id), (sound, everything.id), (sound, None)}
    assert [(entry["event"], entry["job_id"]) for entry in said] == [("webhook_target_unreadable", broken)]
    assert not events.has_new(c)


def test_deliveries_are_found_by_endpoint_job_and_status_in_pages(c: Connection) -> None:
    first, second = put_endpoint(c), put_endpoint(c)
    rows = [put_delivery(c, endpoint, job_id=f"resp_{n}") for n, endpoint in enumerate((first, first, second))]
    put_delivery(c, put_endpoint(c, owner="bob"))
    _send(c, rows[0])

    def ids(**filters: Any) -> list[str]:
        return [row.id for row in deliveries.list_deliveries(c, "alice", **filters)]

    assert ids() == [row.id for row in reversed(rows)]
    assert ids(endpoint_id=first.id) == [rows[1].id, rows[0].id]
    assert ids(job_id="resp_2") == [rows[2].id]
    assert ids(status=DeliveryStatus.DELIVERED) == [rows[0].id]
    assert ids(after=rows[2].id, limit=1) == [rows[1].id]
    assert ids(after=rows[0].id, is_newest_first=False) == [rows[1].id, rows[2].id]
    assert ids(job_id="\0") == ids(after="\0") == []


def test_a_delivery_is_started_again_with_its_schedule(c: Connection) -> None:
    endpoint = put_endpoint(c)
    delivery = put_delivery(c, endpoint)
    _send(c, delivery)

    again = deliveries.redeliver(c, delivery.id, "alice", after(30))
    assert (again.status, again.next_attempt_at, again.ended_at) == (DeliveryStatus.PENDING, after(30), None)
    destination = delivery_queue.Destination(owner="alice", host=again.host)
    [sending] = delivery_queue.claim(c, destination, after(30), after(60), limit=9)
    assert (sending.number, sending.num_failures, sending.event_id) == (2, 0, delivery.event_id)
    for delivery_id, owner in ((delivery.id, "bob"), ("dlv_absent", "alice"), ("\0", "alice")):
        with pytest.raises(WebhookDeliveryNotFound):
            deliveries.redeliver(c, delivery_id, owner, after(30))


def test_an_endpoint_receives_again_what_was_sent_since_a_moment(c: Connection) -> None:
    endpoint = put_endpoint(c)
    rows = [put_delivery(c, endpoint, created_at=after(seconds)) for seconds in (1, 2, 3)]
    test = deliveries.create_test_delivery(c, endpoint, "response.completed", after(4))
    for row in (*rows, test):
        _send(c, row)

    assert _redeliver(c, endpoint, since=after(2)) == Redelivered(num_deliveries=2, after=None)
    pending = [row.id for row in _deliveries(c, status=DeliveryStatus.PENDING)]
    assert pending == [rows[1].id, rows[2].id]
    assert _redeliver(c, endpoint, status=DeliveryStatus.DEAD) == Redelivered(num_deliveries=0, after=None)


def test_redelivery_goes_in_batches_and_begins_nothing_twice(c: Connection) -> None:
    endpoint = put_endpoint(c)
    rows = [put_delivery(c, endpoint, created_at=after(seconds)) for seconds in (1, 2, 3, 40)]
    for row in rows:
        _send(c, row)

    first = _redeliver(c, endpoint, limit=2)
    assert first == Redelivered(num_deliveries=2, after=rows[1].id)
    assert [row.id for row in _deliveries(c, status=DeliveryStatus.PENDING)] == [rows[0].id, rows[1].id]
    destination = delivery_queue.Destination(owner="alice", host=rows[0].host)
    for sending in delivery_queue.claim(c, destination, after(30), after(60), limit=9):
        delivery_queue.settle(c, sending, structs.replace(OK, started_at=after(31)), DELIVERED, after(31))

    second = _redeliver(c, endpoint, so_far=first, limit=2)
    assert second == Redelivered(num_deliveries=3, after=rows[3].id)
    # What happened after the request was sent anyway.
    assert [row.id for row in _deliveries(c, status=DeliveryStatus.PENDING)] == [rows[2].id]
    assert _redeliver(c, endpoint, so_far=second, limit=2) == Redelivered(num_deliveries=3, after=None)


def test_deliveries_of_a_rare_status_are_not_searched_among_all(sqlite_database: Database) -> None:
    asked: list[tuple[str, tuple[object, ...]]] = []
    dead = DeliveryStatus.DEAD
    with sqlite_database.begin() as c:
        endpoint = put_endpoint(c)
        event.listen(c, "before_cursor_execute", lambda *reported: asked.append((reported[2], reported[3])))
        deliveries.list_deliveries(c, "alice", endpoint_id=endpoint.id, status=dead)
        _redeliver(c, endpoint, status=dead)
        plans = [
            " ".join(row.detail for row in c.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values))
            for statement, values in list(asked)
            if "webhook_delivery" in statement
        ]

    assert len(plans) == 2
    for plan in plans:
        assert "INDEX ix_webhook_delivery_endpoint_status (endpoint_id=? AND status=?" in plan, plan
        assert "TEMP B-TREE" not in plan, plan


def test_attempts_are_listed_by_delivery(c: Connection) -> None:
    endpoint = put_endpoint(c)
    first, second = put_delivery(c, endpoint), put_delivery(c, endpoint)
    _send(c, first)
    _send(c, second, Attempt(started_at=after(1), latency_ms=15000, error="no answer"))

    found = deliveries.list_attempts(c, [first.id, second.id, "absent"])
    assert [(row.delivery_id, row.number, row.status_code, row.error) for row in found] == [
        (first.id, 1, 200, None),
        (second.id, 1, None, "no answer"),
    ]
    assert (found[0].answer, found[0].latency_ms, found[1].started_at) == ("thanks", 3, after(1))
    assert deliveries.list_attempts(c, []) == []


def test_what_is_old_is_erased_but_not_what_has_still_to_be_sent(c: Connection) -> None:
    endpoint = put_endpoint(c)
    old, pending, young = (put_delivery(c, endpoint, created_at=after(n)) for n in (1, 2, 50))
    for row in (old, young):
        c.execute(
            insert(table_of(WebhookEvent)).values(
                id=row.event_id, owner="alice", type=row.type, job_id="x", created_at=row.created_at, is_fanned_out=True
            )
        )
    _send(c, old)

    assert events.erase_older(c, after(40)) == 2
    assert events.erase_older(c, after(40)) == 0
    assert [row.id for row in _deliveries(c)] == [pending.id, young.id]
    assert deliveries.list_attempts(c, [old.id]) == []
    assert c.execute(select(func.count()).select_from(table_of(WebhookEvent))).scalar() == 1
