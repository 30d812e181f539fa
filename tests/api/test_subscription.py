"""The order of entries at one reader, whatever arrives when."""

import asyncio
import random
from collections.abc import Callable, Iterator

import pytest

from api.streaming.subscription import Subscription
from api.streaming.subscription_states import LEGAL, OPEN, SubscriptionState
from storage.broker.event_log import EntryId
from storage.contract import EntryKind, LogEntry
from storage.errors import ShuttingDown
from tests.protocol.examples import end, event, start, tokens

LOG = [start(), *(tokens(seq, event(str(seq))) for seq in range(1, 6)), end(6)]


async def _read_all(subscription: Subscription) -> list[LogEntry]:
    """What is ready, without waiting for more."""
    entries: list[LogEntry] = []
    subscription.wake()
    while batch := await subscription.next():
        entries += batch
        subscription.wake()
    return entries


def _after(log: list[LogEntry], position: EntryId | None) -> list[LogEntry]:
    """What a reader of the log finds behind the place."""
    return [entry for entry in log if position is None or (entry.attempt, entry.seq) > position]


async def test_published_entries_come_in_order_and_once() -> None:
    subscription = Subscription("job")
    for entry in LOG:
        subscription.offer(entry)
        subscription.offer(entry)

    assert await _read_all(subscription) == LOG
    assert subscription.is_ended


async def test_a_missing_entry_is_a_gap_that_the_log_fills() -> None:
    subscription = Subscription("job")
    for entry in (LOG[0], LOG[1], LOG[3], LOG[4]):
        subscription.offer(entry)
    assert subscription.state is SubscriptionState.GAP
    assert subscription.position is None

    subscription.begin_filling()
    subscription.offer(LOG[5])
    subscription.take_logged(LOG[:5])
    subscription.finish_filling()
    subscription.offer(LOG[6])

    assert await _read_all(subscription) == LOG


async def test_an_end_is_not_taken_over_a_gap() -> None:
    subscription = Subscription("job")
    subscription.offer(LOG[0])
    subscription.offer(LOG[2])
    subscription.offer(end(0, attempt=2))

    assert subscription.state is SubscriptionState.GAP


async def test_entries_of_a_previous_attempt_are_dropped() -> None:
    subscription = Subscription("job")
    story = [start(), tokens(1, event("a")), start(2), tokens(2, event("b"), attempt=2), end(3, attempt=2)]
    for entry in (*story[:3], tokens(2, event("zombie")), *story[3:]):
        subscription.offer(entry)

    assert await _read_all(subscription) == story


async def test_a_log_that_begins_anew_repeats_nothing() -> None:
    subscription = Subscription("job")
    for entry in LOG[:4]:
        subscription.offer(entry)
    for entry in (start(2), *(tokens(seq, event(str(seq)), attempt=2) for seq in range(1, 6)), end(6, attempt=2)):
        subscription.offer(entry)

    seqs = [entry.seq for entry in await _read_all(subscription) if entry.kind is EntryKind.TOKENS]
    assert seqs == [1, 2, 3, 4, 5]


async def test_a_row_concludes_what_a_lost_log_began() -> None:
    subscription = Subscription("job")
    for entry in (start(3), tokens(1, event("1"), attempt=3), tokens(5, event("5"), attempt=3)):
        subscription.offer(entry)

    subscription.conclude(LOG[1:])

    assert [entry.seq for entry in await _read_all(subscription)] == [0, 1, 2, 3, 4, 5, 6]
    assert subscription.is_ended


async def test_any_mixture_of_live_and_log_gives_the_log() -> None:
    chance = random.Random(3)
    for _ in range(300):
        subscription, written, entries = Subscription("job"), 0, list[LogEntry]()
        while not subscription.is_ended:
            if written < len(LOG):
                written += 1
                if chance.random() < 0.7:
                    subscription.offer(LOG[written - 1])
            if chance.random() < 0.4:
                subscription.begin_filling()
                snapshot = _after(LOG[:written], subscription.position)
                if written < len(LOG) and chance.random() < 0.5:
                    subscription.offer(LOG[written])
                    written += 1
                subscription.take_logged(snapshot)
                subscription.finish_filling()
            entries += await _read_all(subscription)
        # A START that was missed is no gap: streams say nothing of it.
        assert [entry for entry in entries if entry.kind is not EntryKind.START] == LOG[1:]


async def test_what_a_slow_reader_cannot_hold_is_read_from_the_log_when_it_comes() -> None:
    chance, most = random.Random(5), 0
    for _ in range(300):
        log = [start(), *(tokens(seq, event(str(seq))) for seq in range(1, 30)), end(30)]
        lacking, written, entries = list[Subscription](), 0, list[LogEntry]()
        subscription = Subscription("job", refill=lacking.append, max_ready=4)
        reader = asyncio.ensure_future(subscription.next())
        while not (subscription.is_ended and len(entries) == len(log)):
            if written < len(log):
                subscription.offer(log[written])
                subscription.notify()
                written += 1
            if chance.random() < 0.2:
                await asyncio.sleep(0)
            if reader.done():
                most = max(most, len(reader.result()))
                entries += reader.result()
                reader = asyncio.ensure_future(subscription.next())
                await asyncio.sleep(0)
            if lacking and (chance.random() < 0.3 or written == len(log)):
                lacking.clear()
                subscription.begin_filling()
                snapshot = _after(log[:written], subscription.position)
                while written < len(log) and chance.random() < 0.8:
                    subscription.offer(log[written])
                    written += 1
                subscription.take_logged(snapshot)
                await asyncio.sleep(0)
                if chance.random() < 0.5 and reader.done():
                    entries += reader.result()
                    reader = asyncio.ensure_future(subscription.next())
                    await asyncio.sleep(0)
                subscription.finish_filling()
        reader.cancel()
        assert entries == log
    assert most == 4


async def test_a_reader_that_waits_is_woken_and_gets_errors() -> None:
    subscription = Subscription("job")
    waiting = asyncio.create_task(subscription.next())
    await asyncio.sleep(0)
    subscription.wake()
    assert await waiting == []

    subscription.offer(LOG[0])
    subscription.fail(ShuttingDown("bye"))
    assert await subscription.next() == [LOG[0]]
    with pytest.raises(ShuttingDown):
        await subscription.next()


def test_what_was_missed_before_the_start_of_an_attempt_is_found_in_the_log() -> None:
    """Its connection broke while its log was read, and came back before the START."""
    first = [start(), *(tokens(seq, event(str(seq))) for seq in (1, 2, 3))]
    log = [*first, start(attempt=2), *(tokens(seq, event(str(seq)), attempt=2) for seq in (4, 5))]
    subscription = Subscription("job")
    for entry in (*log[:2], log[4], log[5]):
        subscription.offer(entry)
    assert subscription.position is None

    subscription.begin_filling()
    assert subscription.state is SubscriptionState.REREADING
    assert subscription.position is None
    subscription.take_logged(log)
    subscription.finish_filling()

    reported = [entry.seq for entry in subscription.read() if entry.kind is EntryKind.TOKENS]
    assert (reported, subscription.is_filling, subscription.position) == ([1, 2, 3, 4, 5], False, (2, 5))


async def test_an_entry_of_a_later_version_is_skipped() -> None:
    unknown = LogEntry(attempt=1, seq=2, kind=EntryKind.UNKNOWN)
    log = [start(), tokens(1, event("1")), unknown, tokens(3, event("3")), end(4)]
    live, late = Subscription("job"), Subscription("job")

    for entry in log:
        live.offer(entry)
    late.begin_filling()
    late.take_logged(log)
    late.finish_filling()

    wanted = [entry for entry in log if entry is not unknown]
    assert await _read_all(live) == wanted
    assert await _read_all(late) == wanted


def _moves(subscription: Subscription, chance: random.Random) -> Iterator[SubscriptionState]:
    """The state after each of some random calls, with entries that may be missing, too many or of another attempt."""
    log = [start(), *(tokens(seq, event(str(seq))) for seq in range(1, 8)), end(8)]
    calls: list[Callable[[], object]] = [
        lambda: subscription.offer(chance.choice(log)),
        lambda: subscription.take_logged(log[: chance.randrange(len(log) + 1)]),
        subscription.begin_filling,
        lambda: subscription.finish_filling(is_unread=chance.random() < 0.3),
        lambda: subscription.conclude(log[:0] if chance.random() < 0.9 else log[1:]),
        lambda: chance.random() < 0.1 and subscription.fail(ShuttingDown("bye")),
        lambda: chance.random() < 0.1 and subscription.close(),
    ]
    for _ in range(40):
        chance.choice(calls)()
        yield subscription.state


def test_every_legal_move_is_made_and_no_other() -> None:
    chance, seen = random.Random(7), set[tuple[SubscriptionState, SubscriptionState]]()
    for _ in range(4000):
        subscription = Subscription("job", max_ready=3)
        before = subscription.state
        for after in _moves(subscription, chance):
            seen.add((before, after))
            before = after

    assert {(source, target) for source, target in seen if source is not target} == {
        (source, target) for source, targets in LEGAL.items() for target in targets
    }


def test_states_without_a_way_back_take_nothing() -> None:
    final_calls: list[Callable[[Subscription], None]] = [
        lambda one: one.offer(LOG[6]),
        lambda one: one.fail(ShuttingDown("bye")),
        Subscription.close,
    ]
    for end_it in final_calls:
        subscription = Subscription("job")
        for entry in LOG[:6]:
            subscription.offer(entry)
        end_it(subscription)
        state, num_ready = subscription.state, len(subscription._ready)

        subscription.offer(LOG[6])
        subscription.begin_filling()
        subscription.take_logged(LOG)
        subscription.conclude(LOG[1:])
        subscription.finish_filling()

        assert state not in OPEN
        assert (subscription.state, len(subscription._ready)) == (state, num_ready)
