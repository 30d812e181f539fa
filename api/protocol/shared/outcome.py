"""Outcome of a job so far, accumulated from its log: text and finish reason of each choice, and the end."""

from collections.abc import Iterable, Iterator

from storage.contract import End, EntryKind, FinishReason, JobStatus, LogEntry, Result, TokenEvent


class ChoiceText:
    """The text of one choice so far.

    measured: its events that have log probabilities
    """

    __slots__ = ("finish", "measured", "pieces")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.measured: list[TokenEvent] = []
        self.finish: FinishReason | None = None

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)


class Outcome:
    """The accumulated log or result of a job; `end` is None while the job runs."""

    def __init__(self, total_choices: int) -> None:
        self.choices = [ChoiceText() for _ in range(total_choices)]
        self.has_tokens = False
        self.end: End | None = None

    def add(self, entry: LogEntry) -> None:
        """Add a log entry."""
        if entry.kind is EntryKind.TOKENS:
            self.has_tokens = True
            for event in entry.tokens:
                self.add_measured(event)
        elif entry.kind is EntryKind.END:
            self.end = entry.end

    def add_event(self, event: TokenEvent) -> None:
        """Add a token event without its log probabilities."""
        choice = self.choices[event.choice]
        if event.text:
            choice.pieces.append(event.text)
        if event.finish is not None:
            choice.finish = event.finish

    def add_measured(self, event: TokenEvent) -> None:
        """Add a token event with its log probabilities, if it has any."""
        self.add_event(event)
        if event.logprobs is not None:
            self.choices[event.choice].measured.append(event)

    @property
    def has_answer(self) -> bool:
        """Whether the job ended with an answer, complete or incomplete."""
        return self.end is not None and self.end.status in (JobStatus.COMPLETED, JobStatus.INCOMPLETE)

    def finish_reason(self, choice: ChoiceText) -> str | None:
        """The `finish_reason` of a choice; never None when the job has an answer."""
        if choice.finish is not None:
            return choice.finish.value
        if not self.has_answer:
            return None
        is_completed = self.end is not None and self.end.status is JobStatus.COMPLETED
        return (FinishReason.STOP if is_completed else FinishReason.LENGTH).value


def outcome_of(entries: Iterable[LogEntry] | Result, end: End | None, total_choices: int) -> Outcome:
    """The outcome of `entries`; `end` takes precedence over an END entry."""
    outcome = Outcome(total_choices)
    for entry in entries_of(entries, None) if isinstance(entries, Result) else entries:
        outcome.add(entry)
    if end is not None:
        outcome.end = end
    return outcome


def entries_of(result: Result, end: End | None) -> Iterator[LogEntry]:
    """Log entries made from a stored result. Folds give the same frames for them as for the original log."""
    seq = 0
    for seq, tokens in enumerate(result.entries, start=1):
        yield LogEntry(attempt=1, seq=seq, kind=EntryKind.TOKENS, tokens=tokens)
    if end is not None:
        yield LogEntry(attempt=1, seq=seq + 1, kind=EntryKind.END, end=end)
