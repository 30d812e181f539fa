"""Which deliveries are due, whose they are for a while, and what an attempt makes of them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier

import pytest
from sqlalchemy import Connection, text

from storage.database.connections import Database
from storage.webhooks import deliveries, delivery_queue, endpoints
from storage.webhooks.delivery_queue import DISABLE_AFTER, Attempt, Destination, DueDestination, Sending, Verdict
from storage.webhooks.tables import DeliveryStatus, WebhookDelivery, WebhookEndpoint
from tests.storage.examples import NOW, after, put_delivery, put_endpoint

DESTINATION = Destination(owner="alice", host="example.com")
DELIVERED = Verdict(status=DeliveryStatus.DELIVERED)
DEAD = Verdict(status=DeliveryStatus.DEAD)
ANSWER = Attempt(started_at=NOW, latency_ms=3, status_code=200)


@pytest.fixture
def c(database: Database) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


def _claim(
    c: Connection, destination: Destination = DESTINATION, now: datetime = NOW, limit: int = 100
) -> list[Sending]:
    return delivery_queue.claim(c, destination, now, now + timedelta(seconds=30), limit=limit)


def _find(c: Connection, delivery: WebhookDelivery) -> WebhookDelivery:
    return deliveries.get_delivery(c, delivery.id, delivery.owner)


def _later(seconds: float) -> Verdict:
    return Verdict(status=DeliveryStatus.PENDING, next_attempt_at=after(seconds))


def _endpoint(c: Connection, endpoint: WebhookEndpoint) -> WebhookEndpoint:
    return endpoints.get_endpoint(c, endpoint.id, endpoint.owner)


def test_destinations_are_by_owner_and_host_the_longest_overdue_first(c: Connection) -> None:
    mine, other = put_endpoint(c), put_endpoint(c, url="https://other.example:444/")
    bobs = put_endpoint(c, owner="bob")
    put_delivery(c, mine, next_attempt_at=after(3))
    put_delivery(c, mine, next_attempt_at=after(1))
    put_delivery(c, other, next_attempt_at=after(2))
    put_delivery(c, bobs)
    put_delivery(c, put_endpoint(c, owner="carol"), next_attempt_at=after(9))

    assert delivery_queue.list_due_destinations(c, after(5)) == [
        DueDestination(destination=Destination(owner="bob", host="example.com"), due_at=NOW),
        DueDestination(destination=DESTINATION, due_at=after(1)),
        DueDestination(destination=Destination(owner="alice", host="other.example:444"), due_at=after(2)),
    ]


@pytest.mark.parametrize("number", [2, 20])
def test_many_destinations_are_found_whatever_they_hold(c: Connection, number: int) -> None:
    # With two of each the few that are due are gathered, with twenty it goes from destination to destination.
    destinations = {
        Destination(owner=f"o{index % 3}", host=f"h{index}.example"): after(30 - index) for index in range(30)
    }
    for destination, due_at in destinations.items():
        endpoint = put_endpoint(c, owner=destination.owner, url=f"https://{destination.host}/")
        for index in range(number):
            put_delivery(c, endpoint, next_attempt_at=due_at + timedelta(minutes=index % 2))
        put_delivery(c, endpoint, status=DeliveryStatus.DEAD)
    put_delivery(c, put_endpoint(c, owner="o1", url="https://dead.example/"), status=DeliveryStatus.DEAD)

    found = delivery_queue.list_due_destinations(c, after(600))
    assert {one.destination: one.due_at for one in found} == destinations
    assert [one.due_at for one in found] == sorted(destinations.values())
    assert len(delivery_queue.list_due_destinations(c, after(10))) == 10
    assert delivery_queue.list_due_destinations(c, NOW) == []


def test_what_is_left_of_a_deleted_endpoint_is_given_up_together(c: Connection) -> None:
    endpoint, other = put_endpoint(c), put_endpoint(c)
    endpoints.delete_endpoint(c, endpoint.id, "alice", NOW)
    # More than were given up when it was deleted; the last is due tomorrow only.
    left = [put_delivery(c, endpoint, next_attempt_at=after(seconds)) for seconds in (-2, -1, 86400)]
    kept = put_delivery(c, other, next_attempt_at=after(86400))

    assert _claim(c, limit=1) == []

    assert {_find(c, row).status for row in left} == {DeliveryStatus.DEAD}
    assert _find(c, kept).status is DeliveryStatus.PENDING


def test_a_test_of_a_disabled_endpoint_is_sent_though_all_else_is_given_up(c: Connection) -> None:
    endpoint = put_endpoint(c)
    test = deliveries.create_test_delivery(c, endpoint, "response.completed", after(5))
    endpoints.disable(c, endpoint.id, "x", NOW)
    put_delivery(c, endpoint)

    assert _claim(c) == []

    assert [sending.delivery_id for sending in _claim(c, now=after(5))] == [test.id]


def test_a_claimed_delivery_is_its_senders_until_the_lease_ends(c: Connection) -> None:
    endpoint = put_endpoint(c)
    delivery = put_delivery(c, endpoint)
    put_delivery(c, endpoint, next_attempt_at=after(100))

    [sending] = _claim(c)
    assert (sending.delivery_id, sending.event_id, sending.url) == (delivery.id, delivery.event_id, endpoint.url)
    assert (sending.number, sending.num_failures, sending.secrets) == (1, 0, (endpoint.secret,))
    assert (sending.job_id, sending.type, sending.created_at) == (delivery.job_id, "response.completed", NOW)
    assert _claim(c, now=after(29)) == []
    [again] = _claim(c, now=after(30))
    assert (again.delivery_id, again.number) == (delivery.id, 2)


def test_what_was_handed_out_while_its_endpoint_moved_goes_where_that_is_now(c: Connection) -> None:
    endpoint = put_endpoint(c)
    put_delivery(c, endpoint, url="https://old.example/", host="old.example")

    [sending] = _claim(c, Destination(owner="alice", host="old.example"))

    assert sending.url == endpoint.url


def test_a_claim_takes_the_longest_overdue_and_no_more_than_it_may(c: Connection) -> None:
    endpoint = put_endpoint(c)
    rows = [put_delivery(c, endpoint, next_attempt_at=after(-seconds)) for seconds in (1, 3, 2)]

    assert {sending.delivery_id for sending in _claim(c, limit=2)} == {rows[1].id, rows[2].id}
    assert _claim(c, Destination(owner="bob", host="example.com")) == []
    assert _claim(c, Destination(owner="alice", host="other")) == []


def test_of_one_job_and_receiver_the_older_event_goes_first(c: Connection) -> None:
    endpoint, other = put_endpoint(c), put_endpoint(c)
    second = put_delivery(c, endpoint, job_id="resp_1", created_at=after(2))
    first = put_delivery(c, endpoint, job_id="resp_1", created_at=after(1))
    elsewhere = put_delivery(c, other, job_id="resp_1", created_at=after(2))
    own = [
        put_delivery(c, endpoint, job_id="resp_1", endpoint_id=None, secret="s", created_at=after(n)) for n in (1, 2)
    ]

    sendings = {sending.delivery_id: sending for sending in _claim(c)}
    assert set(sendings) == {first.id, elsewhere.id, own[0].id}
    delivery_queue.settle(c, sendings[first.id], ANSWER, _later(1000), NOW)
    assert _claim(c, now=after(5)) == []

    delivery_queue.settle(c, sendings[own[0].id], ANSWER, DELIVERED, NOW)
    assert [sending.delivery_id for sending in _claim(c, now=after(6))] == [own[1].id]
    [last] = [sending for sending in _claim(c, now=after(1000)) if sending.delivery_id == first.id]
    delivery_queue.settle(c, last, ANSWER, DEAD, after(1001))
    assert second.id in [sending.delivery_id for sending in _claim(c, now=after(1002))]


def test_two_senders_never_hold_the_same_delivery(database: Database) -> None:
    with database.begin() as c:
        endpoint = put_endpoint(c)
        ids = {put_delivery(c, endpoint).id for _ in range(40)}
    barrier = Barrier(4)

    def claim_all(_: int) -> list[str]:
        barrier.wait(5)
        claimed: list[str] = []
        for _ in range(10):
            with database.begin() as connection:
                claimed += [sending.delivery_id for sending in _claim(connection, limit=5)]
        return claimed

    with ThreadPoolExecutor(4) as pool:
        claimed = [one for part in pool.map(claim_all, range(4)) for one in part]
    assert sorted(claimed) == sorted(ids)


def test_a_success_ends_a_delivery_whoever_has_claimed_it_since(c: Connection) -> None:
    delivery = put_delivery(c, put_endpoint(c))
    [slow] = _claim(c)
    [second] = _claim(c, now=after(30))

    delivery_queue.settle(c, slow, ANSWER, DELIVERED, after(31))
    delivery_queue.settle(c, second, Attempt(started_at=after(30), latency_ms=9, error="reset"), DEAD, after(32))

    row = _find(c, delivery)
    assert (row.status, row.ended_at, row.num_attempts) == (DeliveryStatus.DELIVERED, after(31), 2)
    attempts = deliveries.list_attempts(c, [delivery.id])
    assert [(one.number, one.status_code, one.error) for one in attempts] == [(1, 200, None), (2, None, "reset")]


def test_a_failure_of_a_sender_that_lost_its_claim_changes_nothing(c: Connection) -> None:
    delivery = put_delivery(c, put_endpoint(c))
    [slow] = _claim(c)
    _claim(c, now=after(30))
    delivery_queue.settle(c, slow, ANSWER, DEAD, after(31))
    row = _find(c, delivery)
    assert (row.status, row.next_attempt_at) == (DeliveryStatus.PENDING, after(60))


@pytest.mark.parametrize("verdict", [DEAD, _later(3600)])
def test_a_failure_that_was_under_way_when_its_delivery_was_redelivered_changes_nothing(
    c: Connection, verdict: Verdict
) -> None:
    delivery = put_delivery(c, put_endpoint(c))
    [sending] = _claim(c)
    deliveries.redeliver(c, delivery.id, "alice", after(5))

    delivery_queue.settle(c, sending, ANSWER, verdict, after(10))
    delivery_queue.give_back(c, [sending], after(11))

    found = _find(c, delivery)
    assert (found.status, found.next_attempt_at) == (DeliveryStatus.PENDING, after(5))
    [again] = _claim(c, now=after(12))
    assert (again.number, again.num_failures) == (2, 0)


def test_a_failure_is_tried_again_at_its_time_and_in_the_end_dead(c: Connection) -> None:
    delivery = put_delivery(c, put_endpoint(c))
    [sending] = _claim(c)
    delivery_queue.settle(c, sending, ANSWER, _later(300), after(1))
    assert _find(c, delivery).next_attempt_at == after(300)

    [sending] = _claim(c, now=after(300))
    assert (sending.number, sending.num_failures) == (2, 1)
    delivery_queue.settle(c, sending, ANSWER, DEAD, after(301))
    row = _find(c, delivery)
    assert (row.status, row.ended_at) == (DeliveryStatus.DEAD, after(301))


def test_an_endpoint_is_disabled_after_five_days_without_a_success(c: Connection) -> None:
    endpoint = put_endpoint(c)
    for seconds in (0, 1000):
        put_delivery(c, endpoint, next_attempt_at=after(seconds))
    waiting = put_delivery(c, endpoint, next_attempt_at=after(10**6))
    over = DISABLE_AFTER.total_seconds()

    [sending] = _claim(c)
    assert not delivery_queue.settle(c, sending, ANSWER, _later(over), NOW)
    assert _endpoint(c, endpoint).failing_since == NOW
    first, second = _claim(c, now=after(over))
    assert not delivery_queue.settle(c, first, ANSWER, DEAD, after(over - 1))
    assert delivery_queue.settle(c, second, ANSWER, _later(over + 60), after(over))

    row = _endpoint(c, endpoint)
    assert (row.disabled_at, row.disabled_reason) == (after(over), delivery_queue.FAILED_TOO_LONG)
    assert _find(c, waiting).status is DeliveryStatus.DEAD
    assert _claim(c, now=after(10**7)) == []


def test_a_success_makes_an_endpoint_well_again(c: Connection) -> None:
    endpoint = put_endpoint(c)
    for _ in range(2):
        put_delivery(c, endpoint)
    bad, good = _claim(c)
    delivery_queue.settle(c, bad, ANSWER, _later(5), NOW)
    delivery_queue.settle(c, good, ANSWER, DELIVERED, after(1))
    assert _endpoint(c, endpoint).failing_since is None


def test_a_receiver_that_is_gone_disables_its_endpoint(c: Connection) -> None:
    endpoint = put_endpoint(c)
    for _ in range(2):
        put_delivery(c, endpoint)
    own = put_delivery(c, endpoint, endpoint_id=None, secret="s")
    gone = Verdict(status=DeliveryStatus.DEAD, is_gone=True)
    results = {sending.delivery_id: delivery_queue.settle(c, sending, ANSWER, gone, NOW) for sending in _claim(c)}

    assert list(results.values()) == [True, False, False]
    assert _endpoint(c, endpoint).disabled_reason == delivery_queue.GONE
    assert _find(c, own).status is DeliveryStatus.DEAD


def test_a_test_is_sent_to_a_disabled_endpoint_and_says_nothing_of_its_health(c: Connection) -> None:
    endpoint = put_endpoint(c)
    put_delivery(c, endpoint)
    [failing] = _claim(c)
    delivery_queue.settle(c, failing, ANSWER, _later(5), NOW)
    endpoints.update_endpoint(c, endpoint.id, "alice", is_enabled=False, now=NOW)

    test = deliveries.create_test_delivery(c, endpoint, "response.completed", after(1))
    [sending] = _claim(c, now=after(1))
    assert (sending.delivery_id, sending.job_id) == (test.id, None)
    gone = Verdict(status=DeliveryStatus.DEAD, is_gone=True)
    assert not delivery_queue.settle(c, sending, ANSWER, gone, after(2))
    assert _endpoint(c, endpoint).disabled_reason == endpoints.BY_OWNER


def test_what_came_for_an_endpoint_while_it_was_disabled_is_dead(c: Connection) -> None:
    disabled, deleted = put_endpoint(c), put_endpoint(c)
    endpoints.update_endpoint(c, disabled.id, "alice", is_enabled=False, now=NOW)
    endpoints.delete_endpoint(c, deleted.id, "alice", NOW)
    rows = [put_delivery(c, endpoint) for endpoint in (disabled, deleted)]

    assert _claim(c) == []
    assert [_find(c, row).status for row in rows] == [DeliveryStatus.DEAD] * 2


def test_what_was_not_sent_is_given_back_and_counts_as_no_failure(c: Connection) -> None:
    put_delivery(c, put_endpoint(c))
    delivery_queue.give_back(c, _claim(c), after(1))
    [sending] = _claim(c, now=after(1))
    assert (sending.number, sending.num_failures) == (2, 0)


def test_the_senders_questions_are_answered_by_their_indexes(sqlite_database: Database) -> None:
    pending = "SELECT {} FROM webhook_delivery WHERE status = 'pending'"
    questions = {
        "COVERING INDEX ix_webhook_delivery_due (next_attempt_at<?)": pending.format("owner, host, next_attempt_at")
        + " AND next_attempt_at <= 'x' ORDER BY next_attempt_at",
        "COVERING INDEX ix_webhook_delivery_line (owner=? AND host>?)": pending.format("min(host)")
        + " AND owner = 'o' AND host > 'h'",
        "COVERING INDEX ix_webhook_delivery_line (owner=? AND host=?)": pending.format("min(next_attempt_at)")
        + " AND owner = 'o' AND host = 'h'",
        "INDEX ix_webhook_delivery_line (owner=? AND host=? AND next_attempt_at<?)": pending.format("id")
        + " AND owner = 'o' AND host = 'h' AND next_attempt_at <= 'x' ORDER BY next_attempt_at",
        "INDEX ix_webhook_event_new": "SELECT id FROM webhook_event WHERE NOT is_fanned_out ORDER BY created_at",
        "INDEX ix_webhook_delivery_endpoint": "SELECT id FROM webhook_delivery WHERE endpoint_id = 'e' ORDER BY id",
    }
    with sqlite_database.connect() as c:
        for index, question in questions.items():
            plan = " ".join(row.detail for row in c.execute(text(f"EXPLAIN QUERY PLAN {question}")))
            assert index in plan, plan
