"""Idempotency keys whose first call this process is accepting just now."""

from collections.abc import Iterator
from contextlib import contextmanager

from storage.accounts.idempotency import KeyedRequest
from storage.errors import IdempotencyKeyInUse, IdempotencyKeyReused


class KeysInUse:
    """Refuses a second call while the first is on its way into the database.

    Only of this process: the database itself lets the second of two processes wait for the first one's row.
    """

    def __init__(self) -> None:
        self._digest_by_key: dict[tuple[str, str], bytes] = {}

    def refuse(self, create_request: KeyedRequest) -> None:
        """Raise IdempotencyKeyInUse, or IdempotencyKeyReused for another call, where the key is in use."""
        digest = self._digest_by_key.get((create_request.owner, create_request.key))
        if digest is not None:
            raise IdempotencyKeyInUse if digest == create_request.body_digest else IdempotencyKeyReused

    @contextmanager
    def using(self, create_request: KeyedRequest) -> Iterator[None]:
        """The block in which the call is accepted; raises as `refuse`."""
        self.refuse(create_request)
        key = (create_request.owner, create_request.key)
        self._digest_by_key[key] = create_request.body_digest
        try:
            yield
        finally:
            del self._digest_by_key[key]
