"""A ticket as the worker sees it: a queue message that is answered once."""

from typing import Protocol


class Ticket(Protocol):
    """A queue message that waits for its answer; answered once, on the event loop's thread."""

    def acknowledge(self) -> None:
        """The message is done with."""

    def give_back(self) -> None:
        """The message goes back to its queue."""
