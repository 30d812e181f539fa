"""The chunk streams of chat and completions: pure folds over a job's log.

Each choice opens with its first token event (chat: the role; completions: the echoed prompt), goes on with its text
and closes with its finish reason; then comes the chunk of usage when it was asked for. Choices interleave as the log
has them.
"""

from collections.abc import Iterator
from typing import cast

from api.protocol.chat_object import SERVICE_TIER, SYSTEM_FINGERPRINT, completion_usage, num_chat_choices, wants_usage
from api.protocol.completion_object import echo_of, num_completion_choices
from api.protocol.envelope import outcome_error
from api.protocol.frames import frame, json_line
from api.protocol.outcome import Outcome
from storage.contract import End, EntryKind, JobHeader, LogEntry, TokenEvent

# Stands in a prepared chunk where a choice's text goes; JSON cannot hold it unescaped otherwise.
_HOLE = "\x00hole"
_HOLE_JSON = b'"\\u0000hole"'


class ChunkFold:
    """Turns entries, fed once each and in order, into frames; one protocol says what a chunk looks like."""

    def __init__(self, header: JobHeader, total_choices: int) -> None:
        self._header = header
        self._wants_usage = wants_usage(header)
        self._outcome = Outcome(total_choices)
        self._closed = [False] * total_choices
        # Head and tail of a text chunk, for each choice that was opened.
        self._around: list[tuple[bytes, bytes] | None] = [None] * total_choices

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
            frames: list[bytes] = []
            for event in entry.tokens:
                around = self._around[event.choice]
                if around is not None and event.finish is None:
                    if event.text:
                        frames.append(b"%b%b%b" % (around[0], json_line(event.text), around[1]))
                else:
                    frames.extend(self._step(event))
            return frames
        if entry.end is None or self.is_ended:
            return []
        self._outcome.end = entry.end
        return list(self._close(entry.end))

    def _step(self, event: TokenEvent) -> Iterator[bytes]:
        """A choice's first event, or its last."""
        self._outcome.add_event(event)
        if self._around[event.choice] is None:
            yield from self._open_choice(event.choice)
        if event.text:
            head, tail = cast(tuple[bytes, bytes], self._around[event.choice])
            yield b"%b%b%b" % (head, json_line(event.text), tail)
        if event.finish is not None:
            yield self._close_choice(event.choice)

    def _open_choice(self, choice: int) -> Iterator[bytes]:
        head, _, tail = frame(self._chunk([self.text_choice(choice, _HOLE)])).partition(_HOLE_JSON)
        self._around[choice] = (head, tail)
        first = self.first_choice(choice)
        if first is not None:
            yield frame(self._chunk([first]))

    def _close_choice(self, choice: int) -> bytes:
        self._closed[choice] = True
        word = self._outcome.finish_word(self._outcome.choices[choice])
        return frame(self._chunk([self.last_choice(choice, word)]))

    def _close(self, end: End) -> Iterator[bytes]:
        error = outcome_error(end)
        if error is not None:
            yield frame(error)
            return
        for choice, is_closed in enumerate(self._closed):
            if not is_closed:
                if self._around[choice] is None:
                    yield from self._open_choice(choice)
                yield self._close_choice(choice)
        if self._wants_usage:
            yield frame(self._chunk([], None if end.usage is None else completion_usage(end.usage)))

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

    def last_choice(self, choice: int, finish: str | None) -> dict[str, object]:
        """The content of a choice's last chunk."""
        raise NotImplementedError


class ChatFold(ChunkFold):
    """Chunks of Chat Completions."""

    def __init__(self, header: JobHeader) -> None:
        super().__init__(header, num_chat_choices(header))

    def envelope(self) -> dict[str, object]:
        return {
            "id": self._header.job_id,
            "object": "chat.completion.chunk",
            "created": self._header.created_at,
            "model": self._header.model,
            "service_tier": SERVICE_TIER,
            "system_fingerprint": SYSTEM_FINGERPRINT,
        }

    def first_choice(self, choice: int) -> dict[str, object] | None:
        return _delta(choice, {"role": "assistant", "content": ""}, None)

    def text_choice(self, choice: int, text: str) -> dict[str, object]:
        return _delta(choice, {"content": text}, None)

    def last_choice(self, choice: int, finish: str | None) -> dict[str, object]:
        return _delta(choice, {}, finish)


def _delta(choice: int, delta: dict[str, object], finish: str | None) -> dict[str, object]:
    return {"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish}


class CompletionFold(ChunkFold):
    """Chunks of Completions."""

    def __init__(self, header: JobHeader) -> None:
        super().__init__(header, num_completion_choices(header))

    def envelope(self) -> dict[str, object]:
        return {
            "id": self._header.job_id,
            "object": "text_completion",
            "created": self._header.created_at,
            "model": self._header.model,
            "system_fingerprint": SYSTEM_FINGERPRINT,
        }

    def first_choice(self, choice: int) -> dict[str, object] | None:
        echo = echo_of(self._header, choice)
        return self.text_choice(choice, echo) if echo else None

    def text_choice(self, choice: int, text: str) -> dict[str, object]:
        return {"text": text, "index": choice, "logprobs": None, "finish_reason": None}

    def last_choice(self, choice: int, finish: str | None) -> dict[str, object]:
        return {"text": "", "index": choice, "logprobs": None, "finish_reason": finish}
