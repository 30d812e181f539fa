"""The chunk streams of chat and completions: pure folds over a job's log.

The first tokens of any choice open all choices in order (chat: the role; completions: the echoed prompt), because the
openai SDK's accumulator fails when choice 1 comes before choice 0. Then texts follow in log order, each choice
ends with its finish reason, and the chunk of usage is last if it was requested.

With log probabilities, an echoed prompt comes with its choice's first event, which holds those of the prompt, and an
event whose text is held back is a chunk of empty text.
"""

from collections.abc import Iterable, Iterator

from api.protocol.answer.completion_parts import usage_of, wants_usage
from api.protocol.answer.items import ItemChange
from api.protocol.answer.outcome import ChoiceAnswer, Outcome
from api.protocol.answer.segments import SegmentParser
from api.protocol.shared.envelope import outcome_error
from api.protocol.shared.frames import frame, json_line
from storage.contract import End, EntryKind, FinishReason, JobHeader, LogEntry, TokenEvent

# Stands in a prepared chunk where a choice's text goes; JSON cannot hold it unescaped otherwise.
_HOLE = "\x00hole"
_HOLE_JSON = b'"\\u0000hole"'


class ChunkFold:
    """The base of both folds: makes frames from log entries, given once each and in order."""

    def __init__(
        self, header: JobHeader, total_choices: int, *, wants_logprobs: bool, parser: SegmentParser | None = None
    ) -> None:
        self._header = header
        self._wants_usage = wants_usage(header)
        self._wants_logprobs = wants_logprobs
        self._outcome = Outcome(total_choices, parser)
        self._is_open = False
        # Head and tail of each choice's text chunks. Empty until the choices are open, and for jobs with log
        # probabilities or a parser, whose chunks are not only text.
        self._around: list[tuple[bytes, bytes]] = []

    @property
    def is_ended(self) -> bool:
        """Whether the last chunk, or the error, was given."""
        return self._outcome.end is not None

    def open(self) -> list[bytes]:
        """Nothing is known before the first entry."""
        return []

    def feed(self, entry: LogEntry) -> list[bytes]:
        """The frames that `entry` adds; a START adds none."""
        if entry.kind is EntryKind.TOKENS:
            return self._texts(entry)
        if entry.end is None or self.is_ended:
            return []
        return list(self._close(entry.end))

    def _texts(self, entry: LogEntry) -> list[bytes]:
        if not self._around:
            return self._texts_slowly(entry)
        frames = []
        for event in entry.tokens:
            if event.text:
                head, tail = self._around[event.choice]
                frames.append(b"%b%b%b" % (head, json_line(event.text), tail))
            if event.finish is not None:
                frames.append(self._finish(event.choice, event.finish))
        return frames

    def _texts_slowly(self, entry: LogEntry) -> list[bytes]:
        """The first texts, and all texts of jobs with log probabilities or a parser."""
        frames = self._open_choices()
        if self._around:
            return frames + self._texts(entry)
        for event in entry.tokens:
            if self._outcome.parser is None:
                frames.extend(self._measured(event))
            else:
                frames.extend(self._changed(event.choice, self._outcome.push(event)))
            if event.finish is not None:
                frames.append(self._finish(event.choice, event.finish))
        return frames

    def _changed(self, choice: int, changes: Iterable[ItemChange]) -> Iterator[bytes]:
        for change in changes:
            content = self.changed_choice(choice, change)
            if content is not None:
                yield frame(self._chunk([content]))

    def _measured(self, event: TokenEvent) -> Iterator[bytes]:
        content = self.measured_choice(event)
        if content is not None:
            yield frame(self._chunk([content]))

    def _open_choices(self) -> list[bytes]:
        """The choices' first chunks, when they are not open yet."""
        if self._is_open:
            return []
        self._is_open = True
        choices = range(len(self._outcome.choices))
        if not self._wants_logprobs and self._outcome.parser is None:
            holes = (frame(self._chunk([self.text_choice(choice, _HOLE)])) for choice in choices)
            self._around = [(head, tail) for head, _, tail in (hole.partition(_HOLE_JSON) for hole in holes)]
        firsts = (self.first_choice(choice) for choice in choices)
        return [frame(self._chunk([first])) for first in firsts if first is not None]

    def _finish(self, choice: int, finish: FinishReason) -> bytes:
        self._outcome.choices[choice].finish = finish
        return self._last_chunk(choice)

    def _last_chunk(self, choice: int) -> bytes:
        return frame(self._chunk([self.last_choice(choice, self.finish_reason(self._outcome.choices[choice]))]))

    def _close(self, end: End) -> Iterator[bytes]:
        held_back = self._outcome.finish(end)
        error = outcome_error(end)
        if error is not None:
            yield frame(error)
            return
        yield from self._open_choices()
        for index, choice in enumerate(self._outcome.choices):
            if choice.finish is None:
                yield from self._changed(index, held_back.get(index, ()))
                if self._wants_logprobs and self._outcome.parser is None:
                    yield from self._measured(TokenEvent(choice=index, token_ids=(), text=""))
                yield self._last_chunk(index)
        if self._wants_usage:
            yield frame(self._chunk([], usage_of(self._outcome)))

    def _chunk(self, choices: list[dict[str, object]], usage: dict[str, object] | None = None) -> dict[str, object]:
        chunk = {**self.envelope(), "choices": choices}
        return {**chunk, "usage": usage} if self._wants_usage else chunk

    def envelope(self) -> dict[str, object]:
        """What every chunk of the stream says."""
        raise NotImplementedError

    def first_choice(self, choice: int) -> dict[str, object] | None:
        """The content of a choice's first chunk, None where a choice begins with its text."""
        raise NotImplementedError

    def text_choice(self, choice: int, text: str) -> dict[str, object]:
        """The content of a chunk of text."""
        raise NotImplementedError

    def measured_choice(self, event: TokenEvent) -> dict[str, object] | None:
        """The content of a chunk of text and log probabilities, None for neither."""
        raise NotImplementedError

    def last_choice(self, choice: int, finish: str | None) -> dict[str, object]:
        """The content of a choice's last chunk."""
        raise NotImplementedError

    def changed_choice(self, choice: int, change: ItemChange) -> dict[str, object] | None:
        """The content of a chunk for a change of a choice's items, None for no chunk."""
        raise NotImplementedError

    def finish_reason(self, choice: ChoiceAnswer) -> str | None:
        """The finish reason of a choice's last chunk."""
        return self._outcome.finish_reason(choice)
