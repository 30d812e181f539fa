"""API-key lookup by digest, with a cache of known keys and one of unknown digests."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import msgspec
from sqlalchemy import Connection

from api.authentication.caller import Caller
from api.caches.database_reads import Reader
from api.caches.refresher import Refresher
from api.task_cancellation import end
from storage.accounts import keys
from storage.accounts.tables import Key
from storage.errors import ShuttingDown

_MAX_KNOWN = 20_000
_MAX_UNKNOWN = 20_000
# A key that was just created may have been tried before.
_UNKNOWN_S = 1.0
# Known keys are read again after this time, whatever revocations say.
_KNOWN_S = 60.0
# Revocations are found by their time, which the clock of another machine has written.
_CLOCK_SLACK = timedelta(hours=1)
# Digests of one query: below the number of parameters that a database takes.
_MAX_BATCH = 500


class KnownKey(msgspec.Struct, kw_only=True):
    """A key as requests need it; times are Unix time, but for those of the cache, which are monotonic seconds."""

    key_id: str
    caller: Caller
    is_revoked: bool
    expires_at: float | None
    read_at: float
    touched_at: float = 0.0

    def is_valid(self, now: float) -> bool:
        """Whether the key is accepted at this moment.

        now: Unix time
        """
        return not self.is_revoked and (self.expires_at is None or now < self.expires_at)


class _Changes(msgspec.Struct, frozen=True):
    """Whether any key exists, and the ids of recently revoked ones."""

    any_exists: bool
    revoked: frozenset[str]


class _Found(msgspec.Struct, frozen=True):
    """The keys of a batch of digests, and whether any key exists."""

    any_exists: bool
    by_digest: dict[str, Key]


class KeyLookup:
    """Keys by digest. A miss is one row of a query that all misses of a moment share.

    any_exists: whether any key was ever created, as of the last refresh or lookup
    """

    def __init__(
        self, reads: Reader, *, refresh_s: float, patience_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """refresh_s: how often revocations are read
        clock:     monotonic seconds
        """
        self.any_exists = False
        self._reads = reads
        self._clock = clock
        self._known: OrderedDict[str, KnownKey] = OrderedDict()
        self._digest_by_id: dict[str, str] = {}
        # When each digest was found to be unknown, in order.
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._pending: dict[str, asyncio.Future[KnownKey | None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._refresher = Refresher("keys", self._load, every_s=refresh_s, patience_s=patience_s)

    async def start(self) -> None:
        """Return when it is known whether keys exist."""
        await self._refresher.start()

    async def stop(self) -> None:
        """Stop refreshing and looking up."""
        await self._refresher.stop()
        if self._task is not None:
            await end(self._task)
        for pending in self._pending.values():
            _fail(pending, ShuttingDown("this process is going down"))
        self._pending.clear()

    def find_cached(self, digest: str) -> KnownKey | None:
        """The key if it is cached and fresh."""
        known = self._known.get(digest)
        if known is None or self._clock() - known.read_at > _KNOWN_S:
            return None
        self._known.move_to_end(digest)
        return known

    def is_cached_as_unknown(self, digest: str) -> bool:
        """Whether the digest was looked up in vain a moment ago."""
        looked_up_at = self._unknown.get(digest)
        return looked_up_at is not None and self._clock() - looked_up_at <= _UNKNOWN_S

    async def find(self, digest: str) -> KnownKey | None:
        """The key as the database has it; None for an unknown digest. Raises StorageUnavailable."""
        pending = self._pending.get(digest)
        if pending is None:
            pending = self._pending[digest] = asyncio.get_running_loop().create_future()
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._look_up(), name="key-lookup")
        return await asyncio.shield(pending)

    async def _look_up(self) -> None:
        """Look up what is pending until nothing is, a batch at a time."""
        while self._pending:
            digests = list(self._pending)[:_MAX_BATCH]
            try:
                found = await self._reads.ask(partial(_read_keys, digests=digests))
            except Exception as error:  # noqa: BLE001 - exception boundary of the task: the callers get the error
                for digest in digests:
                    _fail(self._pending.pop(digest), error)
            else:
                self.any_exists |= found.any_exists
                for digest in digests:
                    known = self._remember(digest, found.by_digest.get(digest))
                    future = self._pending.pop(digest)
                    if not future.done():
                        future.set_result(known)

    def _remember(self, digest: str, key: Key | None) -> KnownKey | None:
        if key is None:
            self._unknown[digest] = self._clock()
            self._unknown.move_to_end(digest)
            if len(self._unknown) > _MAX_UNKNOWN:
                self._unknown.popitem(last=False)
            return None
        before = self._known.get(digest)
        known = self._known[digest] = KnownKey(
            key_id=key.id,
            caller=Caller(project=key.owner, key_id=key.id),
            is_revoked=key.revoked_at is not None,
            expires_at=None if key.expires_at is None else key.expires_at.timestamp(),
            read_at=self._clock(),
            touched_at=0.0 if before is None else before.touched_at,
        )
        self._known.move_to_end(digest)
        self._digest_by_id[key.id] = digest
        if len(self._known) > _MAX_KNOWN:
            _, oldest = self._known.popitem(last=False)
            self._digest_by_id.pop(oldest.key_id, None)
        return known

    async def _load(self) -> None:
        since = datetime.now(UTC) - _CLOCK_SLACK
        changes = await self._reads.ask(lambda connection: _read_changes(connection, since))
        # Keys are never deleted. A lookup may have found the first one after this query began.
        self.any_exists |= changes.any_exists
        for key_id in changes.revoked:
            known = self._known.get(self._digest_by_id.get(key_id, ""))
            if known is not None:
                known.is_revoked = True


def _fail(future: "asyncio.Future[KnownKey | None]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # retrieved: all callers may have gone


def _read_keys(connection: Connection, digests: list[str]) -> _Found:
    by_digest = keys.find_many(connection, digests)
    return _Found(bool(by_digest) or keys.any_exists(connection), by_digest)


def _read_changes(connection: Connection, since: datetime) -> _Changes:
    return _Changes(keys.any_exists(connection), frozenset(keys.list_revoked(connection, since)))
