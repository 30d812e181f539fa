"""Settings of an API process: address, authentication, limits and timeouts."""

import ipaddress
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from api.http.cross_origin import GOOD_ORIGIN
from storage.settings import RequestSettings


class ApiSettings(RequestSettings):
    """Settings of an API process, in addition to those of storage and requests.

    host, port:        address that the server listens on; another than loopback needs a key
    api_key:           the first key; it is stored as a row, with the owner `admin`
    api_key_required:  a key is needed on loopback too, even while none exists
    max_file_bytes:    larger files are refused; those of the purpose `batch` have at most 209,715,200 bytes anyway
    max_file_bytes_per_owner: bytes that the files of one owner may hold together, 0 is no limit
    max_chain_bytes:   stored bytes of all turns that a `previous_response_id` continues, or of a conversation, new
                       input included; a request beyond that is refused
    heartbeat_s:       a silent stream sends a comment after this time
    storage_timeout_s: longest wait for one answer of the database or Redis; under two seconds, the limit for
                       accepting a job
    idempotency_key_ttl_s: how long an `Idempotency-Key` is kept
    expected_models:   ids of the models that should be served, separated by spaces or commas: they are listed as
                       `loading` before their first worker is ready, and `/readyz` waits for all of them;
                       `tokenpost up` sets it
    refresh_s:         refresh interval of keys, models, workers and queue statistics
    cors_origins:      origins, with spaces between them, whose browser pages may call, on a keyless start too
    max_queued_per_model, max_queued_per_owner: queued jobs allowed; beyond that requests are refused. 0 is no limit
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    api_key: Annotated[SecretStr, Field(min_length=16)] | None = None
    api_key_required: bool = False
    max_file_bytes: int = Field(default=512 * 2**20, ge=1024)
    max_file_bytes_per_owner: int = Field(default=20_000_000_000, ge=0)
    max_chain_bytes: int = Field(default=64_000_000, ge=1024)
    heartbeat_s: float = Field(default=15.0, gt=0)
    storage_timeout_s: float = Field(default=1.5, gt=0)
    idempotency_key_ttl_s: int = Field(default=86400, ge=1)
    expected_models: Annotated[tuple[str, ...], NoDecode] = ()
    refresh_s: float = Field(default=1.0, gt=0)
    max_queued_per_model: int = Field(default=100_000, ge=0)
    max_queued_per_owner: int = Field(default=50_000, ge=0)
    cors_origins: str = ""

    @field_validator("cors_origins")
    @classmethod
    def _has_origins(cls, value: str) -> str:
        for origin in value.split():
            if not GOOD_ORIGIN.fullmatch(origin):
                raise ValueError(f"'{origin}' is no origin; write it as https://app.example, without a path")
        return value

    @property
    def allowed_origins(self) -> frozenset[str]:
        """The origins whose browser pages may call."""
        return frozenset(self.cors_origins.split())

    @field_validator("expected_models", mode="before")
    @classmethod
    def _expected_models_is_a_list(cls, given: object) -> object:
        return tuple(dict.fromkeys(given.replace(",", " ").split())) if isinstance(given, str) else given

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        return is_loopback_name(self.host)


def is_loopback_name(host: str) -> bool:
    """Whether a host name or address, without port and brackets, can only mean this machine."""
    if host.lower().rstrip(".").rpartition(".")[2] == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
