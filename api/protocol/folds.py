"""Fold and object by job kind."""

from collections.abc import Iterable
from typing import Protocol, assert_never

from api.protocol.chat.object import chat_object, num_chat_choices
from api.protocol.completions.object import completion_object, num_completion_choices
from api.protocol.responses.fold import ResponseFold
from api.protocol.responses.object import response_object
from api.protocol.shared.chunk_fold import ChatFold, CompletionFold
from api.protocol.shared.outcome import outcome_of
from storage.contract import End, JobHeader, JobKind, LogEntry, Result


class Fold(Protocol):
    """A fold: makes a protocol's frames from log entries. The same log gives the same bytes, live or replayed."""

    def open(self) -> list[bytes]:
        """The frames before any entry; to be called once, first."""

    def feed(self, entry: LogEntry) -> list[bytes]:
        """The frames that `entry` adds; entries come once each and in order. `[DONE]` is not among them."""

    @property
    def is_ended(self) -> bool:
        """Whether the terminal frame was returned."""


def fold_of(header: JobHeader) -> Fold:
    """A fresh fold for a job."""
    match header.kind:
        case JobKind.RESPONSE:
            return ResponseFold(header)
        case JobKind.CHAT:
            return ChatFold(header)
        case JobKind.COMPLETION:
            return CompletionFold(header)
        case _:
            assert_never(header.kind)


def skip_of(kind: JobKind, starting_after: int) -> int:
    """Number of frames to skip in a resumed stream: up to a sequence number, or a number of chunks."""
    return starting_after + 1 if kind is JobKind.RESPONSE else starting_after


def object_of(
    header: JobHeader,
    entries: Iterable[LogEntry] | Result,
    end: End | None = None,
    *,
    metadata: dict[str, str] | None = None,
) -> dict[str, object]:
    """The protocol object of a job, complete or so far; the end may also be among the entries.

    metadata: a chat's current metadata; None when it was never changed
    """
    match header.kind:
        case JobKind.RESPONSE:
            return response_object(header, outcome_of(entries, end, 1))
        case JobKind.CHAT:
            return chat_object(header, outcome_of(entries, end, num_chat_choices(header)), metadata)
        case JobKind.COMPLETION:
            return completion_object(header, outcome_of(entries, end, num_completion_choices(header)))
        case _:
            assert_never(header.kind)
