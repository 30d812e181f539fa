"""The interface of folds, which make a protocol's stream from a job's log."""

from typing import Protocol

from storage.contract import LogEntry


class Fold(Protocol):
    """A fold: makes a protocol's frames from log entries. The same log gives the same bytes, live or replayed."""

    def open(self) -> list[bytes]:
        """The frames before any entry; to be called once, first."""

    def feed(self, entry: LogEntry) -> list[bytes]:
        """The frames that `entry` adds; entries come once each and in order. `[DONE]` is not among them."""

    @property
    def is_ended(self) -> bool:
        """Whether the terminal frame was returned."""
