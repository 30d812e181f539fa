"""Which entries a log lacks."""

from storage.broker.event_log import Tail
from storage.contract import EntryKind, TokenEvent
from workers.publishing.log_entries import missing_rows

ENTRIES = tuple((TokenEvent(choice=0, token_ids=(n,), text=f"{n}"),) for n in range(1, 5))


def _ids(tail: Tail | None) -> list[tuple[int, int, int]]:
    rows = missing_rows("cmpl-1", 2, ENTRIES, tail)
    return [(attempt, seq, kind) for _, attempt, seq, kind, _ in rows]


START = (2, 0, EntryKind.START)


def _tokens(*seqs: int) -> list[tuple[int, int, int]]:
    return [(2, seq, EntryKind.TOKENS) for seq in seqs]


def test_a_log_that_is_gone_lacks_everything() -> None:
    assert _ids(None) == [START, *_tokens(1, 2, 3, 4)]


def test_a_log_that_lost_its_tail_lacks_the_tail() -> None:
    assert _ids(Tail((2, 3), 3)) == _tokens(4)
    assert _ids(Tail((2, 4), 4)) == []


def test_a_log_that_lost_the_start_of_an_attempt_gets_it_again() -> None:
    assert _ids(Tail((1, 2), 2)) == [START, *_tokens(3, 4)]


def test_after_a_start_comes_what_the_log_lacks() -> None:
    assert _ids(Tail((2, 0), 2)) == _tokens(3, 4)
    assert _ids(Tail((2, 0), 0)) == _tokens(1, 2, 3, 4)
    assert _ids(Tail((1, 0), 2)) == [START, *_tokens(3, 4)]


def test_a_log_of_a_higher_attempt_is_left_alone() -> None:
    assert _ids(Tail((3, 0), 0)) == []
