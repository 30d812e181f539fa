"""The chunk streams of chat and completions: pure folds over a job's log.

The first tokens of any choice open all choices in order (chat: the role; completions: the echoed prompt), because the
openai SDK's accumulator fails when choice 1 comes before choice 0. Then texts follow in log order, each choice
ends with its finish reason, and the chunk of usage is last if it was requested.

With log probabilities, an echoed prompt comes with its choice's first event, which holds those of the prompt, and an
event whose text is held back is a chunk of empty text.
"""

from collections.abc import Iterator

from api.protocol.chat.object import SYSTEM_FINGERPRINT, chat_logprobs, completion_usage, num_chat_choices, wants_usage
from api.protocol.completions.object import asked_tier, echo_of, logprobs_of, num_completion_choices
from api.protocol.shared.envelope import outcome_error
from api.protocol.shared.frames import frame, json_line
from api.protocol.shared.logprobs import wants_logprobs
from api.protocol.shared.outcome import Outcome
from api.protocol.shared.tiers import tier_of
from storage.contract import End, EntryKind, FinishReason, JobHeader, LogEntry, TokenEvent

# Stands in a prepared chunk where a choice's text goes; JSON cannot hold it unescaped otherwise.
_HOLE = "\x00hole"
_HOLE_JSON = b'"\\u0000hole"'


class ChunkFold:
    """The base of both folds: makes frames from log entries, given once each and in order."""

    def __init__(self, header: JobHeader, total_choices: int) -> None:
        self._header = header
        self._wants_usage = wants_usage(header)
        self._wants_logprobs = wants_logprobs(header)
        self._outcome = Outcome(total_choices)
        self._is_open = False
        # Head and tail of each choice's text chunks; empty until the choices are open, and where chunks hold more.
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
        self._outcome.end = entry.end
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
        """The first texts, and all texts where log probabilities come with them."""
        frames = self._open_choices()
        if not self._wants_logprobs:
            return frames + self._texts(entry)
        for event in entry.tokens:
            frames.extend(self._measured(event))
            if event.finish is not None:
                frames.append(self._finish(event.choice, event.finish))
        return frames

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
        if not self._wants_logprobs:
            holes = (frame(self._chunk([self.text_choice(choice, _HOLE)])) for choice in choices)
            self._around = [(head, tail) for head, _, tail in (hole.partition(_HOLE_JSON) for hole in holes)]
        firsts = (self.first_choice(choice) for choice in choices)
        return [frame(self._chunk([first])) for first in firsts if first is not None]

    def _finish(self, choice: int, finish: FinishReason) -> bytes:
        self._outcome.choices[choice].finish = finish
        return self._last_chunk(choice)

    def _last_chunk(self, choice: int) -> bytes:
        word = self._outcome.finish_reason(self._outcome.choices[choice])
        return frame(self._chunk([self.last_choice(choice, word)]))

    def _close(self, end: End) -> Iterator[bytes]:
        error = outcome_error(end)
        if error is not None:
            yield frame(error)
            return
        yield from self._open_choices()
        for index, choice in enumerate(self._outcome.choices):
            if choice.finish is None:
                if self._wants_logprobs:
                    yield from self._measured(TokenEvent(choice=index, token_ids=(), text=""))
                yield self._last_chunk(index)
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

    def measured_choice(self, event: TokenEvent) -> dict[str, object] | None:
        """The content of a chunk of text and log probabilities, None for neither."""
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
            "service_tier": tier_of(self._header.request),
            "system_fingerprint": SYSTEM_FINGERPRINT,
        }

    def first_choice(self, choice: int) -> dict[str, object] | None:
        return _delta(choice, {"role": "assistant", "content": ""}, None)

    def text_choice(self, choice: int, text: str) -> dict[str, object]:
        return _delta(choice, {"content": text}, None)

    def measured_choice(self, event: TokenEvent) -> dict[str, object] | None:
        logprobs = chat_logprobs(self._header, [event])
        if not event.text and not logprobs["content"]:
            return None
        return {**self.text_choice(event.choice, event.text), "logprobs": logprobs if logprobs["content"] else None}

    def last_choice(self, choice: int, finish: str | None) -> dict[str, object]:
        return _delta(choice, {}, finish)


def _delta(choice: int, delta: dict[str, object], finish: str | None) -> dict[str, object]:
    return {"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish}


class CompletionFold(ChunkFold):
    """Chunks of Completions."""

    def __init__(self, header: JobHeader) -> None:
        super().__init__(header, num_completion_choices(header))
        choices = range(num_completion_choices(header)) if self._wants_logprobs else range(0)
        self._logprobs = [logprobs_of(header, choice) for choice in choices]
        # Echoes that wait for their choice's first event.
        self._echoes = {choice: echo_of(header, choice) for choice in choices}

    def envelope(self) -> dict[str, object]:
        return {
            "id": self._header.job_id,
            "object": "text_completion",
            "created": self._header.created_at,
            "model": self._header.model,
            **asked_tier(self._header),
            "system_fingerprint": SYSTEM_FINGERPRINT,
        }

    def first_choice(self, choice: int) -> dict[str, object] | None:
        echo = "" if self._wants_logprobs else echo_of(self._header, choice)
        return self.text_choice(choice, echo) if echo else None

    def text_choice(self, choice: int, text: str) -> dict[str, object]:
        return {"text": text, "index": choice, "logprobs": None, "finish_reason": None}

    def measured_choice(self, event: TokenEvent) -> dict[str, object] | None:
        text = self._echoes.pop(event.choice, "") + event.text
        logprobs = self._logprobs[event.choice].push([event])
        if not text and not logprobs["tokens"]:
            return None
        return {**self.text_choice(event.choice, text), "logprobs": logprobs if logprobs["tokens"] else None}

    def last_choice(self, choice: int, finish: str | None) -> dict[str, object]:
        return {"text": "", "index": choice, "logprobs": None, "finish_reason": finish}
