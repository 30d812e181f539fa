"""The schedule, what an answer means, whose turn it is, and what is sent."""

from collections import Counter
from datetime import datetime
from heapq import heappush
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.webhooks.delivery_queue import Destination, DueDestination, Verdict
from storage.webhooks.event_types import EVENT_TYPES
from storage.webhooks.tables import DeliveryStatus
from tests.workers.webhooks.examples import NOW, after, sending
from workers.webhooks.fair_order import MAX_IN_FLIGHT, MAX_PER_DESTINATION, MAX_PER_OWNER, allocate_slots
from workers.webhooks.payload import body_of, headers_of
from workers.webhooks.retry_schedule import MAX_PAUSE_S, SCHEDULE_S, delay_s, retry_after_s
from workers.webhooks.verdict import DEFAULT_PAUSE_S, Answer, verdict_of

DELIVERED = Verdict(status=DeliveryStatus.DELIVERED)
DEAD = Verdict(status=DeliveryStatus.DEAD)


def test_attempts_lie_apart_as_the_schedule_says_and_a_little_more() -> None:
    assert [delay_s(number, 0.0) for number in range(11)] == [*SCHEDULE_S, None]
    assert delay_s(1, 0.5) == pytest.approx(5 * 1.05)
    assert delay_s(9, 0.999) == pytest.approx(86400 * 1.0999)
    assert delay_s(99, 0.0) is None
    assert sum(SCHEDULE_S) / 3600 > 72


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9" * 400, MAX_PAUSE_S),
        ("Sat, 21 Nov 2026 12:01:30 GMT", 90.0),
        ("Sat, 21 Nov 2026 12:01:30 -0000", 90.0),
        ("Sat, 21 Nov 2026 11:00:00 GMT", 0.0),
        ("Sat, 21 Nov 2099 11:00:00 GMT", MAX_PAUSE_S),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("Sat, 99 Nov 2026 99:99:99 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", MAX_PAUSE_S),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
        # Beyond all dates.
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("Fri, 31 Dec 99999999999999 23:59:59 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -99999999999999", None),
    ],
)
def test_a_wish_to_be_left_alone_is_read_and_bounded(value: str, expected: float | None) -> None:
    assert retry_after_s(value, NOW) == expected


_DATE_PARTS = st.sampled_from(
    ["Fri,", "31", "Dec", "9999", "9" * 14, "0000", "23:59:59", "99:99", "-9999", "+0000", "GMT", ",", "-", "\0"]
)


@given(st.one_of(st.text(max_size=40), st.lists(_DATE_PARTS, max_size=8).map(" ".join)))
def test_whatever_a_receiver_asks_for_is_bounded_or_ignored(value: str) -> None:
    delay = retry_after_s(value, NOW)

    assert delay is None or 0.0 <= delay <= MAX_PAUSE_S


def _at(seconds: float) -> Verdict:
    return Verdict(status=DeliveryStatus.PENDING, next_attempt_at=after(seconds))


@pytest.mark.parametrize(
    ("answer", "changes", "expected"),
    [
        (Answer(status_code=200), {}, DELIVERED),
        (Answer(status_code=299, retry_after_s=9), {"num_failures": 9}, DELIVERED),
        (Answer(status_code=302), {}, _at(5)),
        (Answer(status_code=500), {}, _at(5)),
        (Answer(status_code=500), {"num_failures": 1}, _at(300)),
        (Answer(status_code=404), {"num_failures": 8}, _at(86400)),
        (Answer(status_code=404), {"num_failures": 9}, DEAD),
        (Answer(error="No answer."), {}, _at(5)),
        (Answer(status_code=429), {}, _at(DEFAULT_PAUSE_S)),
        (Answer(status_code=502), {"num_failures": 1}, _at(300)),
        (Answer(status_code=503, retry_after_s=60), {}, _at(60)),
        (Answer(status_code=429, retry_after_s=60), {"num_failures": 1}, _at(300)),
        (Answer(status_code=410), {}, Verdict(status=DeliveryStatus.DEAD, is_gone=True)),
        (Answer(status_code=500), {"job_id": None}, DEAD),
    ],
)
def test_what_an_answer_makes_of_a_delivery(answer: Answer, changes: dict[str, Any], expected: Verdict) -> None:
    assert verdict_of(sending(**changes), answer, NOW, 0.0) == expected


def test_answers_say_in_words_what_was_wrong() -> None:
    assert Answer(status_code=204).complaint is None
    assert Answer(status_code=301).complaint == "The receiver answered 301; redirects are not followed."
    assert Answer(status_code=500).complaint == "The receiver answered 500."
    assert Answer(error="No address.").complaint == "No address."
    pauses = [Answer(status_code=code).pause_s for code in (200, 429, 500, 502, 503, 504)]
    assert pauses == [0, DEFAULT_PAUSE_S, 0, DEFAULT_PAUSE_S, 0, DEFAULT_PAUSE_S]


def test_a_body_points_to_the_job_and_holds_nothing_of_it() -> None:
    assert msgspec.json.decode(body_of(sending())) == {
        "id": "evt_1",
        "object": "event",
        "created_at": int(NOW.timestamp()),
        "type": "response.completed",
        "data": {"id": "resp_1"},
    }
    for event_type in EVENT_TYPES:
        assert b"test" in body_of(sending(job_id=None, type=event_type))


def test_headers_name_the_event_and_sign_it() -> None:
    one = sending(secrets=("a", "b"))
    headers = headers_of(one, body_of(one), "example.com:1", 7)
    assert len({name for name, _ in headers}) == len(headers)
    named = dict(headers)
    assert (named["host"], named["webhook-id"], named["webhook-timestamp"]) == ("example.com:1", "evt_1", "7")
    assert len(named["webhook-signature"].split(" ")) == 2
    assert named["user-agent"].startswith("tokenpost/")


def _due(owner: str, host: str, due_at: datetime = NOW) -> DueDestination:
    return DueDestination(destination=Destination(owner=owner, host=host), due_at=due_at)


def test_a_destination_gets_a_few_places_the_longest_overdue_first() -> None:
    first, second = _due("a", "x", after(1)), _due("a", "y")
    assert allocate_slots([first, second], {}) == {
        first.destination: MAX_PER_DESTINATION,
        second.destination: MAX_PER_DESTINATION,
    }
    assert allocate_slots([first], {first.destination: MAX_PER_DESTINATION - 1}) == {first.destination: 1}
    assert allocate_slots([first], {first.destination: MAX_PER_DESTINATION}) == {}
    almost = {Destination(owner=f"o{number}", host="h"): 1 for number in range(MAX_IN_FLIGHT - 1)}
    assert allocate_slots([first, second], almost) == {second.destination: 1}


def test_an_owner_of_a_thousand_receivers_leaves_places_to_others() -> None:
    greedy = [_due("greedy", f"h{number}") for number in range(1000)]
    modest = [_due(f"o{number}", "h", after(5)) for number in range(20)]

    slots = allocate_slots([*greedy, *modest], {})

    of_owner: Counter[str] = Counter()
    for destination, count in slots.items():
        of_owner[destination.owner] += count
    assert of_owner["greedy"] == MAX_PER_OWNER
    assert all(of_owner[one.destination.owner] == MAX_PER_DESTINATION for one in modest)


_DESTINATIONS = st.builds(_due, st.sampled_from("abcdefgh"), st.sampled_from([f"h{n}" for n in range(20)]))


@given(
    due=st.lists(_DESTINATIONS, unique_by=lambda one: one.destination),
    in_flight=st.dictionaries(
        _DESTINATIONS.map(lambda one: one.destination), st.integers(1, MAX_PER_DESTINATION), max_size=30
    ),
)
def test_no_bound_is_passed_and_no_place_stays_free_for_nothing(
    due: list[DueDestination], in_flight: dict[Destination, int]
) -> None:
    slots = allocate_slots(due, in_flight)

    total = Counter(in_flight) + Counter(slots)
    of_owner: Counter[str] = Counter()
    for destination, count in total.items():
        of_owner[destination.owner] += count
    began = sum(slots.values())
    assert set(slots) <= {one.destination for one in due}
    for one in due:
        has_room = total[one.destination] < MAX_PER_DESTINATION and of_owner[one.destination.owner] < MAX_PER_OWNER
        assert not has_room or total.total() >= MAX_IN_FLIGHT
    assert not began or (
        total.total() <= MAX_IN_FLIGHT and max(total[destination] for destination in slots) <= MAX_PER_DESTINATION
    )


def _slow_allocation(due: list[DueDestination], in_flight: dict[Destination, int]) -> dict[Destination, int]:
    """The rule itself: place by place, whoever comes first of all that may have one."""
    total, of_owner, slots = Counter(in_flight), Counter[str](), Counter[Destination]()
    for destination, count in in_flight.items():
        of_owner[destination.owner] += count
    while total.total() < MAX_IN_FLIGHT:
        able = [
            (of_owner[one.destination.owner], total[one.destination], one.due_at, number)
            for number, one in enumerate(due)
            if of_owner[one.destination.owner] < MAX_PER_OWNER and total[one.destination] < MAX_PER_DESTINATION
        ]
        if not able:
            break
        destination = due[min(able)[-1]].destination
        for counter in (total, slots):
            counter[destination] += 1
        of_owner[destination.owner] += 1
    return dict(slots)


@given(
    due=st.lists(
        st.builds(
            _due, st.sampled_from("abcde"), st.sampled_from([f"h{n}" for n in range(12)]), st.integers(0, 3).map(after)
        ),
        unique_by=lambda one: one.destination,
        max_size=30,
    ),
    in_flight=st.dictionaries(
        _DESTINATIONS.map(lambda one: one.destination), st.integers(1, MAX_PER_DESTINATION), max_size=10
    ),
)
def test_places_go_one_by_one_to_who_has_the_fewest(
    due: list[DueDestination], in_flight: dict[Destination, int]
) -> None:
    assert allocate_slots(due, in_flight) == _slow_allocation(due, in_flight)


def test_of_ten_thousand_receivers_only_those_with_a_free_slot_are_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    num_pushes = 0

    def push(heap: list[Any], item: Any) -> None:
        nonlocal num_pushes
        num_pushes += 1
        heappush(heap, item)

    monkeypatch.setattr("workers.webhooks.fair_order.heapq.heappush", push)

    slots = allocate_slots([_due("greedy", f"h{number}") for number in range(10_000)], {})

    assert sum(slots.values()) == MAX_PER_OWNER
    assert num_pushes <= 2 * MAX_PER_OWNER
