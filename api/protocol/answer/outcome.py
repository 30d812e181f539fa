"""Outcome of a job so far, accumulated from its log: items and finish reason of each choice, and the end."""

from collections.abc import Iterable, Iterator

from api.protocol.answer.items import Item, ItemChange, ItemKind, ItemList
from api.protocol.answer.segments import SegmentParser
from storage.contract import End, EntryKind, FinishReason, JobStatus, LogEntry, Result, TokenEvent


class ChoiceAnswer:
    """The answer of one choice so far.

    pieces:   text of a plain answer
    measured: its events that have log probabilities
    parsed:   the items of an answer that has a parser; pieces and measured are unused then
    """

    __slots__ = ("finish", "measured", "parsed", "pieces")

    def __init__(self, parsed: ItemList | None = None) -> None:
        self.pieces: list[str] = []
        self.measured: list[TokenEvent] = []
        self.finish: FinishReason | None = None
        self.parsed = parsed

    @property
    def items(self) -> list[Item]:
        """All items; those of a plain answer are one text."""
        if self.parsed is not None:
            return self.parsed.items
        item = Item(ItemKind.TEXT)
        item.pieces, item.measured = self.pieces, self.measured
        return [item]

    @property
    def text(self) -> str:
        """The whole text, without reasoning and calls."""
        return self.text_of(ItemKind.TEXT)

    def text_of(self, kind: ItemKind) -> str:
        """The joined text of all items of a kind."""
        return "".join(item.text for item in self.items if item.kind is kind)


class Outcome:
    """The accumulated log or result of a job; `end` is None while the job runs.

    result: the stored result that it was accumulated from, if it was from one
    """

    def __init__(self, total_choices: int, parser: SegmentParser | None = None) -> None:
        self.parser = parser
        self.choices = [ChoiceAnswer(None if parser is None else ItemList()) for _ in range(total_choices)]
        self.has_tokens = False
        self.result: Result | None = None
        self.end: End | None = None

    def add(self, entry: LogEntry) -> None:
        """Add a log entry."""
        if entry.kind is EntryKind.TOKENS:
            self.has_tokens = True
            for event in entry.tokens:
                self.push(event) if self.parser is not None else self.add_measured(event)
        elif entry.end is not None:
            self.finish(entry.end)

    def add_event(self, event: TokenEvent) -> None:
        """Add a token event of a plain answer without its log probabilities."""
        choice = self.choices[event.choice]
        if event.text:
            choice.pieces.append(event.text)
        if event.finish is not None:
            choice.finish = event.finish

    def add_measured(self, event: TokenEvent) -> None:
        """Add a token event of a plain answer with its log probabilities, if it has any."""
        self.add_event(event)
        if event.logprobs is not None:
            self.choices[event.choice].measured.append(event)

    def push(self, event: TokenEvent) -> list[ItemChange]:
        """Add a token event of an answer that has a parser; returns the changes to the choice's items."""
        choice = self.choices[event.choice]
        assert self.parser is not None
        assert choice.parsed is not None
        changes = choice.parsed.push(self.parser.push(event.choice, event.text, event.token_ids), event)
        if event.finish is not None:
            choice.finish = event.finish
            changes += choice.parsed.push(self.parser.close(event.choice), None)
        return changes

    def finish(self, end: End) -> dict[int, list[ItemChange]]:
        """End the job; returns, by choice, the changes by text that a parser still held back."""
        self.end = end
        if self.parser is None:
            return {}
        return {
            index: choice.parsed.push(self.parser.close(index), None)
            for index, choice in enumerate(self.choices)
            if choice.finish is None and choice.parsed is not None
        }

    @property
    def has_answer(self) -> bool:
        """Whether the job ended with an answer, complete or incomplete."""
        return self.end is not None and self.end.status in (JobStatus.COMPLETED, JobStatus.INCOMPLETE)

    def finish_reason(self, choice: ChoiceAnswer) -> str | None:
        """The `finish_reason` of a choice; never None when the job has an answer."""
        if choice.finish is not None:
            return choice.finish.value
        if not self.has_answer:
            return None
        is_completed = self.end is not None and self.end.status is JobStatus.COMPLETED
        return (FinishReason.STOP if is_completed else FinishReason.LENGTH).value


def outcome_of(
    entries: Iterable[LogEntry] | Result, end: End | None, total_choices: int, parser: SegmentParser | None = None
) -> Outcome:
    """The outcome of `entries`; `end` takes precedence over an END entry."""
    outcome = Outcome(total_choices, parser)
    outcome.result = entries if isinstance(entries, Result) else None
    for entry in entries_of(entries, None) if isinstance(entries, Result) else entries:
        outcome.add(entry)
    if end is not None and outcome.end is None:
        outcome.finish(end)
    elif end is not None:
        outcome.end = end
    return outcome


def entries_of(result: Result, end: End | None) -> Iterator[LogEntry]:
    """Log entries made from a stored result. Folds give the same frames for them as for the original log."""
    seq = 0
    for seq, tokens in enumerate(result.entries, start=1):
        yield LogEntry(attempt=1, seq=seq, kind=EntryKind.TOKENS, tokens=tokens)
    if end is not None:
        yield LogEntry(attempt=1, seq=seq + 1, kind=EntryKind.END, end=end)
