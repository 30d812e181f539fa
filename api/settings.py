"""Settings of the API."""

from ipaddress import ip_address

from pydantic import Field, SecretStr

from storage.errors import SettingInvalid
from storage.settings import StorageSettings


class ApiSettings(StorageSettings):
    """What the API reads from the environment.

    host:            address that it listens on; anything but loopback needs a key
    api_key:         the first key, made valid at start
    heartbeat_s:     a stream that is silent for so long says that it lives
    max_body_bytes:  larger request bodies are refused
    refresh_s:       age at which what is known of models and keys is read anew
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    api_key: SecretStr | None = None
    api_key_required: bool = False
    heartbeat_s: float = Field(default=15.0, gt=0)
    max_body_bytes: int = Field(default=10_000_000, ge=1024)
    refresh_s: float = Field(default=1.0, gt=0)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the API."""
        return is_loopback_name(self.host)

    def pepper_bytes(self) -> bytes:
        """The secret that keys are hashed with; SettingInvalid when there is none."""
        if self.pepper is None:
            raise SettingInvalid("TOKENPOST_PEPPER: is missing; API keys are hashed with it")
        return self.pepper.get_secret_value().encode()


def is_loopback_name(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    if host.rstrip(".").lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
