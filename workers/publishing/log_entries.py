"""Log entries: the rows to append, what a log lacks, the usage of what it holds; pure, for workers and sweeper."""

from collections.abc import Collection, Sequence

from storage.broker.event_log import Row, Tail, encode_end, encode_tokens
from storage.contract import End, EntryKind, JobSpec, TokenEvent, Usage
from storage.embedding_job import AnySpec
from storage.spans import reasoning_tokens

Entries = Sequence[tuple[TokenEvent, ...]]


def start_row(job_id: str, attempt: int) -> Row:
    """The entry that opens an attempt, and fences all before it."""
    return (job_id, attempt, 0, EntryKind.START, b"")


def tokens_row(job_id: str, attempt: int, seq: int, events: Sequence[TokenEvent]) -> Row:
    """One engine step's events of one job."""
    return (job_id, attempt, seq, EntryKind.TOKENS, encode_tokens(events))


def end_row(job_id: str, attempt: int, num_entries: int, end: End) -> Row:
    """The entry that closes a log after `num_entries` TOKENS entries."""
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


def usage_of(spec: AnySpec, entries: Collection[tuple[TokenEvent, ...]], cached_tokens: int = 0) -> Usage:
    """Tokens of a job: the prompts of which something came, each once, and everything that its entries emitted.

    What was stopped while it waited, in a queue or in the engine, used nothing.
    """
    if not isinstance(spec, JobSpec):
        # The log of an embedding job does not say what was read of it.
        return Usage(prompt_tokens=0, completion_tokens=0)
    begun = {event.choice // spec.num_choices for entry in entries for event in entry}
    return Usage(
        prompt_tokens=sum(len(spec.prompts[number]) for number in begun),
        completion_tokens=sum(len(event.token_ids) for entry in entries for event in entry),
        cached_tokens=cached_tokens,
        reasoning_tokens=reasoning_tokens(spec, entries),
    )
