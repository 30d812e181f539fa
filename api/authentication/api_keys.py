"""Authentication: the owner of an API key. A revocation takes effect within a second."""

import asyncio
import time
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import urlsplit

import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from starlette.types import Scope

from api.authentication.caller import Caller
from api.authentication.failed_logins import FailedLogins
from api.authentication.key_lookup import KeyLookup, KnownKey
from api.caches.database_reads import Reader
from api.headers import header_of
from api.settings import ApiSettings, is_loopback_name
from storage.accounts import keys
from storage.database.group_commit import Writer
from storage.errors import HostNotAllowed, InvalidApiKey, SettingInvalid, TooManyFailedLogins
from storage.settings import GOOD_PEPPER_CHARACTERS

# The owner of all jobs while no key is required.
LOCAL_OWNER = "local"
_LOCAL_CALLER = Caller(project=LOCAL_OWNER)
FIRST_KEY_OWNER = "admin"
# `last_used_at` is for people; a row is not written more often than this for one key.
_TOUCH_EVERY_S = 60.0
# Delay of lookups for an address with many failures; all that came meanwhile share one query.
_THROTTLE_S = 0.1

log = structlog.get_logger()


class ApiKeyCache:
    """Authenticates callers by API key, and knows whether a key is required."""

    def __init__(self, settings: ApiSettings, reads: Reader, writer: Writer) -> None:
        self._writer = writer
        self._first_key = settings.api_key
        self._pepper = None if settings.pepper is None else settings.pepper.get_secret_value().encode()
        self._host = settings.host
        self._may_be_open = settings.is_loopback and not settings.api_key_required
        self._is_reachable = not settings.is_loopback
        self._lookup = KeyLookup(reads, refresh_s=settings.refresh_s, patience_s=settings.storage_timeout_s)
        self.failed_logins = FailedLogins()

    async def start(self) -> None:
        """Return when it is known whether keys exist; SettingInvalid where others can reach us and none does."""
        if self._pepper is not None and len(self._pepper) < GOOD_PEPPER_CHARACTERS:
            log.warning("pepper_short", name="TOKENPOST_PEPPER", num_recommended=GOOD_PEPPER_CHARACTERS)
        if self._first_key is not None:
            await self._put_first_key(self._first_key.get_secret_value())
        await self._lookup.start()
        if self._is_reachable and not self._lookup.any_exists:
            raise SettingInvalid(
                f"TOKENPOST_API_KEY: {self._host} can be reached from other machines, so a key is needed; "
                "set this variable, or run: tokenpost keys create --owner NAME"
            )

    async def stop(self) -> None:
        """Look up keys no more."""
        await self._lookup.stop()

    @property
    def is_open(self) -> bool:
        """Whether every caller on this machine is the local owner: no key exists, and none is required."""
        return self._may_be_open and not self._lookup.any_exists

    def guard(self, scope: Scope, *, is_allowed_origin: bool = False) -> None:
        """Raise HostNotAllowed for a page of another site that reaches an open API through its visitor's browser.

        DNS rebinding shows in Host, a plain cross-site request in Origin.
        """
        if not self.is_open:
            return
        if not _is_loopback(header_of(scope, b"host") or b""):
            raise HostNotAllowed("Without API keys this server answers only to loopback names such as localhost.")
        origin = header_of(scope, b"origin")
        if origin is not None and not is_allowed_origin and not _is_loopback(origin.partition(b"//")[2]):
            raise HostNotAllowed("Without API keys this server does not answer to pages of other sites.")

    async def caller_of(self, scope: Scope) -> Caller:
        """The caller; raises InvalidApiKey."""
        plaintext = _bearer_of(header_of(scope, b"authorization"))
        if not plaintext:
            if self.is_open:
                return _LOCAL_CALLER
            raise InvalidApiKey("You didn't provide an API key. Send it as: Authorization: Bearer YOUR_KEY")
        # Without a pepper no key is found, but the lookup still reads whether any exists.
        digest = keys.digest_of(plaintext, self._pepper or b"")
        key, now = await self._find(digest, _address_of(scope)), time.time()
        # A keyless start lets any key pass; the lookup has ended that if the first key was created a moment ago.
        if key is None and self.is_open:
            return _LOCAL_CALLER
        if key is None or not key.is_valid(now):
            self.failed_logins.note(_address_of(scope))
            if self._pepper is None:
                raise InvalidApiKey("No API key can be checked: the server has no TOKENPOST_PEPPER.")
            raise InvalidApiKey("Incorrect API key provided: it is unknown, revoked or expired.")
        self._note_use(key, now)
        return key.caller

    async def _find(self, digest: str, address: str) -> KnownKey | None:
        """The key; that of an address with many failures is looked up with a delay, in a batch with others."""
        cached = self._lookup.find_cached(digest)
        if cached is not None or self._lookup.is_cached_as_unknown(digest):
            return cached
        if not self.failed_logins.is_throttled(address):
            return await self._lookup.find(digest)
        if not self.failed_logins.begin_delay(address):
            raise TooManyFailedLogins("Too many unknown API keys came from your address.", retry_after_s=1)
        try:
            await asyncio.sleep(_THROTTLE_S)
            return await self._lookup.find(digest)
        finally:
            self.failed_logins.end_delay(address)

    def _note_use(self, key: KnownKey, now: float) -> None:
        if now - key.touched_at < _TOUCH_EVERY_S:
            return
        key.touched_at = now
        moment = datetime.fromtimestamp(now, UTC)
        self._writer.submit(lambda connection: keys.touch(connection, key.key_id, moment))

    async def _put_first_key(self, plaintext: str) -> None:
        """Make TOKENPOST_API_KEY a row, unless it is one; revoked once, it stays so."""
        if self._pepper is None:
            raise SettingInvalid("TOKENPOST_PEPPER: must be set where API keys are used")
        pepper = self._pepper

        def put(connection: Connection) -> None:
            if keys.find_by_digest(connection, keys.digest_of(plaintext, pepper)) is None:
                now = datetime.now(UTC)
                keys.create(connection, FIRST_KEY_OWNER, pepper=pepper, now=now, plaintext=plaintext)

        try:
            await self._writer.call(put)
        except IntegrityError:
            log.info("first_key_known")  # another API process that starts at the same time was faster


def _address_of(scope: Scope) -> str:
    """The client's address; a proxy's, where one is in front."""
    client = scope.get("client")
    return client[0] if client else "local"


def _bearer_of(header: bytes | None) -> str:
    scheme, _, value = (header or b"").partition(b" ")
    return value.strip().decode("latin-1") if scheme.lower() == b"bearer" else ""


@lru_cache(maxsize=256)
def _is_loopback(authority: bytes) -> bool:
    """Whether the host of `host[:port]` can only mean this machine; False for what is no host."""
    try:
        name = None if b"@" in authority else urlsplit(b"//" + authority).hostname
        return name is not None and is_loopback_name(name.decode("ascii"))
    except ValueError:
        return False
