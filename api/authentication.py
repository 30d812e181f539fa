"""Who calls: the owner behind an API key, from a copy of the keys that is a second old at most."""

import time
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import urlsplit

import msgspec
import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from starlette.types import Scope

from api.caches.database_reads import Reader
from api.caches.refresher import Refresher
from api.headers import header_of
from api.settings import ApiSettings, is_loopback_name
from storage.accounts import keys
from storage.database.group_commit import Writer
from storage.errors import HostNotAllowed, InvalidApiKey, SettingInvalid

# Whose jobs are made while no key is needed.
LOCAL_OWNER = "local"
FIRST_KEY_OWNER = "admin"
# `last_used_at` is for people; a row is not written more often than this for one key.
_TOUCH_EVERY_S = 60.0

log = structlog.get_logger()


class _KnownKey(msgspec.Struct, frozen=True, kw_only=True):
    key_id: str
    owner: str
    is_revoked: bool
    expires_at: float | None


class ApiKeyCache:
    """The keys of all owners, and whether one is needed."""

    def __init__(self, settings: ApiSettings, reads: Reader, writer: Writer) -> None:
        self._reads = reads
        self._writer = writer
        self._first_key = settings.api_key
        self._pepper = None if settings.pepper is None else settings.pepper.get_secret_value().encode()
        self._host = settings.host
        self._may_be_open = settings.is_loopback and not settings.api_key_required
        self._is_reachable = not settings.is_loopback
        self._known: dict[str, _KnownKey] = {}
        self._touched_at: dict[str, float] = {}
        self._refresher = Refresher(
            "keys", self._load, every_s=settings.refresh_s, patience_s=settings.storage_timeout_s
        )

    async def start(self) -> None:
        """Return when the keys are known; SettingInvalid where others can reach us and no key is there."""
        if self._first_key is not None:
            await self._put_first_key(self._first_key.get_secret_value())
        await self._refresher.start()
        if self._is_reachable and not self._known:
            raise SettingInvalid(
                f"TOKENPOST_API_KEY: {self._host} can be reached from other machines, so a key is needed; "
                "set this variable, or run: tokenpost keys create --owner NAME"
            )

    async def stop(self) -> None:
        """Read keys no more."""
        await self._refresher.stop()

    @property
    def is_open(self) -> bool:
        """Whether everybody on this machine is let in as the local owner: no key exists, and none is demanded."""
        return self._may_be_open and not self._known

    def guard(self, scope: Scope, *, is_allowed_origin: bool = False) -> None:
        """Raise HostNotAllowed for a page of another site that speaks to an open API through its visitor's browser.

        DNS rebinding shows in Host, a plain cross-site request in Origin.
        """
        if not self.is_open:
            return
        if not _is_loopback(header_of(scope, b"host") or b""):
            raise HostNotAllowed("Without API keys this server answers only to loopback names such as localhost.")
        origin = header_of(scope, b"origin")
        if origin is not None and not is_allowed_origin and not _is_loopback(origin.partition(b"//")[2]):
            raise HostNotAllowed("Without API keys this server does not answer to pages of other sites.")

    async def owner_of(self, scope: Scope) -> str:
        """The caller's name; raises InvalidApiKey."""
        if self.is_open:
            return LOCAL_OWNER
        plaintext = _bearer_of(header_of(scope, b"authorization"))
        if not plaintext:
            raise InvalidApiKey("You didn't provide an API key. Send it as: Authorization: Bearer YOUR_KEY")
        digest = keys.digest_of(plaintext, self._pepper_or_refuse())
        if digest not in self._known:
            await self._refresher.renew()
        key = self._known.get(digest)
        now = time.time()
        if key is None or key.is_revoked or (key.expires_at is not None and now >= key.expires_at):
            raise InvalidApiKey("Incorrect API key provided: it is unknown, revoked or expired.")
        self._note_use(key.key_id, now)
        return key.owner

    def _pepper_or_refuse(self) -> bytes:
        if self._pepper is None:
            raise InvalidApiKey("No API key can be checked: the server has no TOKENPOST_PEPPER.")
        return self._pepper

    def _note_use(self, key_id: str, now: float) -> None:
        if now - self._touched_at.get(key_id, 0.0) < _TOUCH_EVERY_S:
            return
        self._touched_at[key_id] = now
        moment = datetime.fromtimestamp(now, UTC)
        self._writer.submit(lambda connection: keys.touch(connection, key_id, moment))

    async def _load(self) -> None:
        self._known = await self._reads.ask(_known_keys)

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
            log.info("first_key_known")  # another API process that starts at this moment was faster


def _known_keys(connection: Connection) -> dict[str, _KnownKey]:
    return {
        key.digest: _KnownKey(
            key_id=key.id,
            owner=key.owner,
            is_revoked=key.revoked_at is not None,
            expires_at=None if key.expires_at is None else key.expires_at.timestamp(),
        )
        for key in keys.list_keys(connection)
    }


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
