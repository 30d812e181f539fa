"""Bounds on how many transfers of files run at once: each holds a chunk in memory."""

from collections.abc import Iterator
from contextlib import contextmanager

from storage.errors import TooManyTransfers

_RETRY_AFTER_S = 2


class TransferSlots:
    """Counts the transfers of one process, of one owner and of all."""

    def __init__(self, *, max_transfers: int, max_per_owner: int) -> None:
        self._max_transfers = max_transfers
        self._max_per_owner = max_per_owner
        self._num_by_owner: dict[str, int] = {}

    @contextmanager
    def taken(self, owner: str) -> Iterator[None]:
        """A block that is one transfer; TooManyTransfers when as many run as may."""
        num_of_owner = self._num_by_owner.get(owner, 0)
        if num_of_owner >= self._max_per_owner or sum(self._num_by_owner.values()) >= self._max_transfers:
            raise TooManyTransfers(
                "Too many files are being transferred. Please try again in a moment.", retry_after_s=_RETRY_AFTER_S
            )
        self._num_by_owner[owner] = num_of_owner + 1
        try:
            yield
        finally:
            if self._num_by_owner[owner] == 1:
                del self._num_by_owner[owner]
            else:
                self._num_by_owner[owner] -= 1
