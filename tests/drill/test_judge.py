"""The judge finds each lie: a faultless ledger with one thing changed must be found out, and for the right harm."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec import structs

from tests.drill.forged import (
    BLOCK,
    CHAT,
    IDS,
    POLL,
    STREAM,
    answer,
    entries,
    evidence,
    frames_of_response,
)
from tests.drill.judge import Evidence, Harm, Row, judge
from tests.drill.ledger import Entry, What

Forge = Callable[[], Evidence]


def test_a_faultless_ledger_is_not_blamed() -> None:
    assert judge(evidence()) == []


def without(match: Callable[[Entry], bool]) -> Evidence:
    """The ledger without some entries."""
    return evidence(entries=[entry for entry in entries() if not match(entry)])


def with_changed(match: Callable[[Entry], bool], **fields: Any) -> Evidence:  # Any: fields of Entry
    """The ledger with some entries changed."""
    reported = [msgspec.structs.replace(one, **fields) if match(one) else one for one in entries()]
    return evidence(entries=reported)


def with_more(*more: Entry) -> Evidence:
    return evidence(entries=[*entries(), *more])


def with_row(of: str, **fields: Any) -> Evidence:  # Any: fields of Row
    rows = dict(evidence().rows)
    rows[IDS[of]] = dataclasses.replace(rows[IDS[of]], **fields)
    return evidence(rows=rows)


def with_replay(name: str, **fields: Any) -> Evidence:  # Any: fields of Replay
    replays = dict(evidence().replays)
    replays[IDS[name]] = dataclasses.replace(replays[IDS[name]], **fields)
    return evidence(replays=replays)


def with_hooks(of: str, *more: dict[str, Any], **fields: Any) -> Evidence:  # Any: fields of Hook
    """The job's delivery changed, and further ones like it."""
    hooks = dict(evidence().hooks or {})
    first = dataclasses.replace(hooks[IDS[of]][0], **fields)
    hooks[IDS[of]] = [first, *(dataclasses.replace(first, **other) for other in more)]
    return evidence(hooks=hooks)


def without_row(name: str) -> Evidence:
    return evidence(rows={job_id: row for job_id, row in evidence().rows.items() if job_id != IDS[name]})


def without_replay(name: str) -> Evidence:
    return evidence(replays={job_id: one for job_id, one in evidence().replays.items() if job_id != IDS[name]})


def stray(status: str, name: str = STREAM) -> Evidence:
    """A row of which no client was notified."""
    row = Row(id="resp_9", status=status, name=name)
    return evidence(rows=dict(evidence().rows) | {row.id: row})


def is_event(name: str, seq: int) -> Callable[[Entry], bool]:
    return lambda entry: entry.what is What.EVENT and entry.job == name and entry.seq == seq


def event_again(name: str, seq: int) -> Evidence:
    """An event comes twice in a row."""
    reported = []
    for entry in entries():
        reported += [entry, entry] if is_event(name, seq)(entry) else [entry]
    return evidence(entries=reported)


def another_delta() -> Evidence:
    frame = frames_of_response()[1].replace("A fox", "A cat")
    return with_changed(is_event(STREAM, 1), data=frame)


def another_terminal(**changes: Any) -> Evidence:  # Any: arguments of answer
    body = {"type": "response.completed", "response": answer(**changes), "sequence_number": 3}
    return with_changed(is_event(STREAM, 3), data=f"event: response.completed\ndata: {json.dumps(body)}")


def refused(name: str, status: int) -> Entry:
    return Entry(t=5, job=name, what=What.REFUSED, status=status, retry_after="1", took_s=0.1, data="{}")


def refused_and_yet_made() -> Evidence:
    asked = Entry(t=4, job="load-new", what=What.ASKED, kind="poll", template=0)
    row = Row(id="resp_9", status="completed", name="load-new", num_prompt=7, num_output=3, num_token_ids=3)
    reported = [*entries(), asked, refused("load-new", 503)]
    return evidence(entries=reported, rows=dict(evidence().rows) | {row.id: row}, has_keys=False)


def ended_is(name: str) -> Callable[[Entry], bool]:
    return lambda entry: entry.what is What.ENDED and entry.job == name


LIES: dict[str, tuple[Harm, Forge]] = {
    "no row": (Harm.LOST, lambda: without_row(POLL)),
    "a row that runs for ever": (Harm.LOST, lambda: with_row(STREAM, status="in_progress")),
    "a row that waits for ever": (Harm.LOST, lambda: with_row(POLL, status="queued")),
    "a job that failed": (Harm.LOST, lambda: with_row(BLOCK, status="failed", failure="worker_lost")),
    "a job that was cancelled": (Harm.LOST, lambda: with_row(CHAT, status="cancelled")),
    "a client that waits in vain": (Harm.LOST, lambda: with_more(Entry(t=40, job=POLL, what=What.GAVE_UP))),
    "an event that never came": (Harm.LOST, lambda: without(is_event(STREAM, 1))),
    "a server error": (Harm.LOST, lambda: with_more(refused(POLL, 500))),
    "a job that is not found": (Harm.LOST, lambda: with_more(refused(CHAT, 404))),
    "a job that cannot be read": (Harm.LOST, lambda: without_replay(CHAT)),
    "a job of nobody that runs for ever": (Harm.LOST, lambda: stray("in_progress", "load-unknown")),
    "an event twice": (Harm.DOUBLED, lambda: event_again(STREAM, 1)),
    "a chunk twice": (Harm.DOUBLED, lambda: event_again(CHAT, 1)),
    "an end twice": (Harm.DOUBLED, lambda: with_more(Entry(t=40, job=CHAT, what=What.ENDED))),
    "no end": (Harm.DOUBLED, lambda: without(ended_is(STREAM))),
    "a terminal event twice": (Harm.DOUBLED, lambda: event_again(STREAM, 3)),
    "two ENDs in the log": (Harm.DOUBLED, lambda: with_replay(POLL, num_ends=2)),
    "a log that stays open": (Harm.LOST, lambda: with_replay(POLL, num_ends=0)),
    "two jobs for one": (
        Harm.DOUBLED,
        lambda: with_more(Entry(t=6, job=POLL, what=What.ACCEPTED, id="resp_9", status=200)),
    ),
    "two rows for one key": (Harm.DOUBLED, lambda: stray("completed")),
    "a row for a refusal": (Harm.DOUBLED, refused_and_yet_made),
    "another text in the stream": (Harm.CHANGED, another_delta),
    "another text at the end": (Harm.CHANGED, lambda: another_terminal(text="A cat ran.")),
    "another usage at the end": (Harm.CHANGED, lambda: another_terminal(output_tokens=4)),
    "another text when polled": (
        Harm.CHANGED,
        lambda: with_changed(ended_is(POLL), data=json.dumps(answer("A cat ran."))),
    ),
    "another usage in the answer": (
        Harm.CHANGED,
        lambda: with_changed(ended_is(BLOCK), data=json.dumps(answer(output_tokens=9))),
    ),
    "another text when read again": (Harm.CHANGED, lambda: with_replay(BLOCK, text="A fox ran")),
    "another replay": (Harm.CHANGED, lambda: with_replay(STREAM, frames=frames_of_response()[:-1])),
    "usage that is booked twice": (Harm.CHANGED, lambda: with_row(POLL, num_output=6)),
    "a result with more tokens": (Harm.CHANGED, lambda: with_row(POLL, num_token_ids=4)),
    "an END that counts otherwise": (Harm.CHANGED, lambda: with_replay(POLL, end_usage=(7, 4))),
    "another status in the row": (Harm.CHANGED, lambda: with_row(STREAM, status="incomplete")),
    "a row with another name": (Harm.CHANGED, lambda: with_row(POLL, name=BLOCK)),
    "a status that goes back": (
        Harm.CHANGED,
        lambda: with_more(Entry(t=40, job=POLL, what=What.POLLED, data="in_progress")),
    ),
    "nobody notified": (Harm.LOST, lambda: evidence(hooks={})),
    "refused by the receiver": (Harm.LOST, lambda: with_hooks(POLL, is_taken=False)),
    "two events": (Harm.DOUBLED, lambda: with_hooks(CHAT, {"event_id": "evt_other"})),
    "another end reported": (Harm.CHANGED, lambda: with_hooks(POLL, type="response.failed")),
    "no signature": (Harm.CHANGED, lambda: with_hooks(BLOCK, is_signed=False)),
    "another receiver": (Harm.CHANGED, lambda: with_hooks(BLOCK, {"is_followed": True})),
    "a doomed job that completes": (
        Harm.CHANGED,
        lambda: dataclasses.replace(evidence(), doomed=frozenset([IDS[POLL]])),
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_is_found_out(lie: str) -> None:
    harm, forge = LIES[lie]

    found = judge(forge())

    assert harm in {violation.harm for violation in found}


def test_a_doomed_job_may_fail_and_nothing_else() -> None:
    failed = with_row(POLL, status="failed", failure="worker_lost", num_output=None)
    hooks = with_hooks(POLL, type="response.failed").hooks

    assert judge(dataclasses.replace(failed, hooks=hooks, doomed=frozenset([IDS[POLL]]))) == []


def test_an_event_may_be_delivered_twice() -> None:
    assert judge(with_hooks(POLL, {"is_taken": True}, is_taken=False)) == []


def test_a_client_that_hung_up_may_meet_its_own_first_request() -> None:
    in_use = structs.replace(refused(POLL, 409), data='{"error":{"code":"idempotency_key_in_use"}}')

    assert judge(evidence(entries=[*entries(), in_use])) == []
    assert judge(evidence(entries=[*entries(), refused(POLL, 409)])) != []


def test_hooks_are_not_asked_for_where_no_job_has_a_target() -> None:
    assert judge(evidence(hooks=None)) == []


def test_the_sum_alone_is_found_out() -> None:
    found = judge(with_row(BLOCK, num_output=6))

    assert [violation.what for violation in found if violation.job == "all"] == [
        "15 output tokens are billed instead of 12"
    ]


def test_an_unanswered_request_may_have_made_a_row_where_keys_do_not_hold() -> None:
    broken = [Entry(t=4, job=STREAM, what=What.BROKEN, data="ReadError")]
    forged = dataclasses.replace(stray("completed"), entries=[*entries(), *broken], has_keys=False)

    assert judge(forged) == []
    assert judge(dataclasses.replace(forged, has_keys=True)) != []
