"""Who calls: API keys, and the keyless mode of a platform that only its own machine can reach."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection

from api.refresh import Snapshot
from api.settings import ApiSettings, is_loopback_name
from storage import keys
from storage.database import Database
from storage.errors import HostNotAllowed, InvalidApiKey, SettingInvalid
from storage.keys import digest_of, is_valid
from storage.tables import Key

LOCAL_OWNER = "local"
FIRST_KEY_OWNER = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRing:
    """All keys as they were a moment ago; `is_open` while none was ever made."""

    key_by_digest: dict[str, Key]
    is_open: bool


class Gate:
    """Decides whose a request is."""

    def __init__(self, settings: ApiSettings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._ring = Snapshot(self._read, every_s=settings.refresh_s)

    async def start(self) -> None:
        """Read the keys; SettingInvalid when the API would be open to other machines."""
        ring = await self._ring.renew()
        if ring.is_open and not self._settings.is_loopback:
            raise SettingInvalid(
                f"TOKENPOST_API_KEY: is missing; listening on {self._settings.host} needs a key "
                "(set it, or make one with `tokenpost keys create --owner NAME`)"
            )
        await self._ring.start()

    async def stop(self) -> None:
        """Read keys no more."""
        await self._ring.stop()

    async def owner_of(self, authorization: str | None, host: str | None) -> str:
        """The owner that a request speaks for; InvalidApiKey or HostNotAllowed for one that may not speak."""
        ring = self._ring.value
        if ring.is_open and not self._settings.api_key_required and self._settings.is_loopback:
            return _local_owner(host)
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise InvalidApiKey("You didn't provide an API key. Send it as 'Authorization: Bearer YOUR_KEY'.")
        digest = digest_of(secret.strip(), self._settings.pepper_bytes())
        key = ring.key_by_digest.get(digest) or (await self._ring.renew()).key_by_digest.get(digest)
        if key is None or not is_valid(key, datetime.now(UTC)):
            raise InvalidApiKey("Incorrect API key provided. It is unknown, revoked or expired.")
        return key.owner

    def _read(self) -> KeyRing:
        with self._database.connect() as connection:
            found = keys.list_keys(connection)
        return KeyRing(key_by_digest={key.digest: key for key in found}, is_open=not found)


def ensure_first_key(connection: Connection, settings: ApiSettings) -> None:
    """Make the key of the settings valid, if there is one and it is not known yet."""
    if settings.api_key is None:
        return
    plaintext, pepper = settings.api_key.get_secret_value(), settings.pepper_bytes()
    if keys.find_by_digest(connection, digest_of(plaintext, pepper)) is None:
        keys.create(connection, FIRST_KEY_OWNER, pepper=pepper, now=datetime.now(UTC), plaintext=plaintext)


def _local_owner(host: str | None) -> str:
    # A web page that rebinds its own name to 127.0.0.1 shows that name here.
    name = (host or "").strip()
    name = name.rpartition(":")[0] if not name.endswith("]") and ":" in name else name
    if not is_loopback_name(name):
        raise HostNotAllowed(
            "While no API key exists, only loopback names are accepted as Host. "
            "Create a key (`tokenpost keys create --owner NAME`) to use other names."
        )
    return LOCAL_OWNER
