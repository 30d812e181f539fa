"""The API's settings: where it listens, whom it lets in, how long it waits."""

import ipaddress

from pydantic import Field, SecretStr

from storage.settings import StorageSettings


class ApiSettings(StorageSettings):
    """Settings of an API process, besides those of the ground.

    host, port:        address that the server listens on; another than loopback needs a key
    api_key:           the first key; it becomes a row like any other, of the owner `admin`
    api_key_required:  a key is needed on loopback too, also while none exists
    max_body_bytes:    larger request bodies are refused
    heartbeat_s:       a stream that has nothing to say sends a comment so often
    storage_timeout_s: longest wait for one answer of the database or Redis; under two seconds, after which nobody shall
                       wait for a job to be accepted
    idempotency_key_ttl_s: how long an `Idempotency-Key` stands for what it made
    refresh_s:         how often keys, models, workers and the number of waiting jobs are read anew
    max_queued_per_model, max_queued_per_owner: jobs that may wait; beyond that calls are refused. 0 is no bound
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    api_key: SecretStr | None = None
    api_key_required: bool = False
    max_body_bytes: int = Field(default=10_000_000, ge=1024)
    heartbeat_s: float = Field(default=15.0, gt=0)
    storage_timeout_s: float = Field(default=1.5, gt=0)
    idempotency_key_ttl_s: int = Field(default=86400, ge=1)
    refresh_s: float = Field(default=1.0, gt=0)
    max_queued_per_model: int = Field(default=100_000, ge=0)
    max_queued_per_owner: int = Field(default=50_000, ge=0)

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
