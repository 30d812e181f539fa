"""What a log says in sum: each choice's text and end, whether tokens came, how the job ended."""

from collections.abc import Iterable, Iterator

from storage.contract import End, EntryKind, FinishReason, JobStatus, LogEntry, Result, TokenEvent


class ChoiceText:
    """One choice so far.

    measured: its events that carry log probabilities
    """

    __slots__ = ("finish", "measured", "pieces")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.measured: list[TokenEvent] = []
        self.finish: FinishReason | None = None

    @property
    def text(self) -> str:
        """All its text."""
        return "".join(self.pieces)


class Outcome:
    """The sum of a log, or of a result; `end` is None while the job runs."""

    def __init__(self, total_choices: int) -> None:
        self.choices = [ChoiceText() for _ in range(total_choices)]
        self.has_tokens = False
        self.end: End | None = None

    def add(self, entry: LogEntry) -> None:
        """Takes one entry in."""
        if entry.kind is EntryKind.TOKENS:
            self.has_tokens = True
            for event in entry.tokens:
                self.add_measured(event)
        elif entry.kind is EntryKind.END:
            self.end = entry.end

    def add_event(self, event: TokenEvent) -> None:
        """Takes one choice's step in, but for its log probabilities."""
        choice = self.choices[event.choice]
        if event.text:
            choice.pieces.append(event.text)
        if event.finish is not None:
            choice.finish = event.finish

    def add_measured(self, event: TokenEvent) -> None:
        """Takes one choice's step in, with its log probabilities if it has any."""
        self.add_event(event)
        if event.logprobs is not None:
            self.choices[event.choice].measured.append(event)

    @property
    def has_answer(self) -> bool:
        """Whether the job ended with an answer, whole or cut short."""
        return self.end is not None and self.end.status in (JobStatus.COMPLETED, JobStatus.INCOMPLETE)

    def finish_word(self, choice: ChoiceText) -> str | None:
        """A choice's `finish_reason`; an answered job leaves none open."""
        if choice.finish is not None:
            return choice.finish.value
        if not self.has_answer:
            return None
        is_whole = self.end is not None and self.end.status is JobStatus.COMPLETED
        return (FinishReason.STOP if is_whole else FinishReason.LENGTH).value


def outcome_of(entries: Iterable[LogEntry] | Result, end: End | None, total_choices: int) -> Outcome:
    """The sum of `entries`; `end` wins over an END among them."""
    outcome = Outcome(total_choices)
    for entry in entries_of(entries, None) if isinstance(entries, Result) else entries:
        outcome.add(entry)
    if end is not None:
        outcome.end = end
    return outcome


def entries_of(result: Result, end: End | None) -> Iterator[LogEntry]:
    """The log that a stored result stands for; folds give the same frames for it as for the log itself."""
    seq = 0
    for seq, tokens in enumerate(result.entries, start=1):
        yield LogEntry(attempt=1, seq=seq, kind=EntryKind.TOKENS, tokens=tokens)
    if end is not None:
        yield LogEntry(attempt=1, seq=seq + 1, kind=EntryKind.END, end=end)
