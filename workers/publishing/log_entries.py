"""Which entries a log lacks, from what is known elsewhere: pure, for workers and the sweeper."""

from collections.abc import Sequence

from storage.broker.event_log import Row, Tail, encode_end, encode_tokens
from storage.contract import End, EntryKind, TokenEvent

Entries = Sequence[tuple[TokenEvent, ...]]


def start_row(job_id: str, attempt: int) -> Row:
    """The entry that opens an attempt, and shuts out all before it."""
    return (job_id, attempt, 0, EntryKind.START, b"")


def tokens_row(job_id: str, attempt: int, seq: int, events: Sequence[TokenEvent]) -> Row:
    """One engine step's events of one job."""
    return (job_id, attempt, seq, EntryKind.TOKENS, encode_tokens(events))


def end_row(job_id: str, attempt: int, num_entries: int, end: End) -> Row:
    """The entry that closes a log behind `num_entries` TOKENS entries."""
    return (job_id, attempt, num_entries + 1, EntryKind.END, encode_end(end))


def missing_rows(job_id: str, attempt: int, entries: Entries, tail: Tail | None) -> list[Row]:
    """What a log that ends with `tail` lacks of an attempt: its START, its TOKENS, or nothing.

    entries: TOKENS of all attempts; entry i has seq i + 1
    """
    known = tail or Tail((0, 0), 0)
    if known.last[0] > attempt:
        return []
    rows = [] if known.last[0] == attempt else [start_row(job_id, attempt)]
    rows += [tokens_row(job_id, attempt, seq, entries[seq - 1]) for seq in range(known.seq + 1, len(entries) + 1)]
    return rows
