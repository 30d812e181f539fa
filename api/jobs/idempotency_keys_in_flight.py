"""Idempotency keys whose first request this process is accepting at the moment."""

from collections.abc import Iterator
from contextlib import contextmanager

from storage.accounts.idempotency import KeyedRequest
from storage.errors import IdempotencyKeyInUse, IdempotencyKeyReused


class IdempotencyKeysInFlight:
    """Refuses a second request while the first one's row is being written.

    This covers one process. Between processes, the database lets the second wait for the first one's row.
    """

    def __init__(self) -> None:
        self._digest_by_key: dict[tuple[str, str], bytes] = {}

    def refuse(self, create_request: KeyedRequest) -> None:
        """Raise IdempotencyKeyInUse for a key in use; IdempotencyKeyReused where a different request uses it."""
        digest = self._digest_by_key.get((create_request.owner, create_request.key))
        if digest is not None:
            raise IdempotencyKeyInUse if digest == create_request.body_digest else IdempotencyKeyReused

    @contextmanager
    def using(self, create_request: KeyedRequest) -> Iterator[None]:
        """A block in which the request is accepted; raises as `refuse`."""
        self.refuse(create_request)
        key = (create_request.owner, create_request.key)
        self._digest_by_key[key] = create_request.body_digest
        try:
            yield
        finally:
            del self._digest_by_key[key]
