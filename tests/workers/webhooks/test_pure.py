"""The schedule, what an answer means, whose turn it is, and what is sent."""

from collections import Counter
from datetime import datetime
from heapq import heappush
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.webhooks.delivery_queue import DueLine, Line, Verdict
from storage.webhooks.event_types import EVENT_TYPES
from storage.webhooks.tables import DeliveryStatus
from tests.workers.webhooks.examples import NOW, after, sending
from workers.webhooks.fair_order import MAX_OF_LINE, MAX_OF_OWNER, MAX_UNDER_WAY, next_turns
from workers.webhooks.payload import body_of, headers_of
from workers.webhooks.retry_schedule import MAX_PAUSE_S, SCHEDULE_S, delay_s, retry_after_s
from workers.webhooks.verdict import BREATHER_S, Answer, verdict_of

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
    ],
)
def test_a_wish_to_be_left_alone_is_read_and_bounded(value: str, expected: float | None) -> None:
    assert retry_after_s(value, NOW) == expected


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
        (Answer(status_code=429), {}, _at(BREATHER_S)),
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
    assert pauses == [0, BREATHER_S, 0, BREATHER_S, 0, BREATHER_S]


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


def _due(owner: str, host: str, due_at: datetime = NOW) -> DueLine:
    return DueLine(line=Line(owner=owner, host=host), due_at=due_at)


def test_a_line_gets_a_few_places_the_longest_overdue_first() -> None:
    first, second = _due("a", "x", after(1)), _due("a", "y")
    assert next_turns([first, second], {}) == {first.line: MAX_OF_LINE, second.line: MAX_OF_LINE}
    assert next_turns([first], {first.line: MAX_OF_LINE - 1}) == {first.line: 1}
    assert next_turns([first], {first.line: MAX_OF_LINE}) == {}
    almost = {Line(owner=f"o{number}", host="h"): 1 for number in range(MAX_UNDER_WAY - 1)}
    assert next_turns([first, second], almost) == {second.line: 1}


def test_an_owner_of_a_thousand_receivers_leaves_places_to_others() -> None:
    greedy = [_due("greedy", f"h{number}") for number in range(1000)]
    modest = [_due(f"o{number}", "h", after(5)) for number in range(20)]

    turns = next_turns([*greedy, *modest], {})

    of_owner: Counter[str] = Counter()
    for line, count in turns.items():
        of_owner[line.owner] += count
    assert of_owner["greedy"] == MAX_OF_OWNER
    assert all(of_owner[one.line.owner] == MAX_OF_LINE for one in modest)


_LINES = st.builds(_due, st.sampled_from("abcdefgh"), st.sampled_from([f"h{n}" for n in range(20)]))


@given(
    due=st.lists(_LINES, unique_by=lambda one: one.line),
    under_way=st.dictionaries(_LINES.map(lambda one: one.line), st.integers(1, MAX_OF_LINE), max_size=30),
)
def test_no_bound_is_passed_and_no_place_stays_free_for_nothing(due: list[DueLine], under_way: dict[Line, int]) -> None:
    turns = next_turns(due, under_way)

    total = Counter(under_way) + Counter(turns)
    of_owner: Counter[str] = Counter()
    for line, count in total.items():
        of_owner[line.owner] += count
    began = sum(turns.values())
    assert set(turns) <= {one.line for one in due}
    for one in due:
        has_room = total[one.line] < MAX_OF_LINE and of_owner[one.line.owner] < MAX_OF_OWNER
        assert not has_room or total.total() >= MAX_UNDER_WAY
    assert not began or (total.total() <= MAX_UNDER_WAY and max(total[line] for line in turns) <= MAX_OF_LINE)


def _slow_turns(due: list[DueLine], under_way: dict[Line, int]) -> dict[Line, int]:
    """The rule itself: place by place, whoever comes first of all that may have one."""
    total, of_owner, turns = Counter(under_way), Counter[str](), Counter[Line]()
    for line, count in under_way.items():
        of_owner[line.owner] += count
    while total.total() < MAX_UNDER_WAY:
        able = [
            (of_owner[one.line.owner], total[one.line], one.due_at, number)
            for number, one in enumerate(due)
            if of_owner[one.line.owner] < MAX_OF_OWNER and total[one.line] < MAX_OF_LINE
        ]
        if not able:
            break
        line = due[min(able)[-1]].line
        for counter in (total, turns):
            counter[line] += 1
        of_owner[line.owner] += 1
    return dict(turns)


@given(
    due=st.lists(
        st.builds(
            _due, st.sampled_from("abcde"), st.sampled_from([f"h{n}" for n in range(12)]), st.integers(0, 3).map(after)
        ),
        unique_by=lambda one: one.line,
        max_size=30,
    ),
    under_way=st.dictionaries(_LINES.map(lambda one: one.line), st.integers(1, MAX_OF_LINE), max_size=10),
)
def test_places_go_one_by_one_to_who_has_the_fewest(due: list[DueLine], under_way: dict[Line, int]) -> None:
    assert next_turns(due, under_way) == _slow_turns(due, under_way)


def test_of_ten_thousand_receivers_only_those_with_a_place_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    num_pushes = 0

    def push(heap: list[Any], item: Any) -> None:
        nonlocal num_pushes
        num_pushes += 1
        heappush(heap, item)

    monkeypatch.setattr("workers.webhooks.fair_order.heapq.heappush", push)

    turns = next_turns([_due("greedy", f"h{number}") for number in range(10_000)], {})

    assert sum(turns.values()) == MAX_OF_OWNER
    assert num_pushes <= 2 * MAX_OF_OWNER
