"""Where the ground lies: addresses of database and Redis, and how long things are kept."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import structlog
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from storage.errors import SettingInvalid
from storage.network.url_policy import Policy, is_allow_entry

ENV_PREFIX = "TOKENPOST_"
_POSTGRES_PREFIXES = ("postgresql://", "postgres://", "postgresql+psycopg://")

log = structlog.get_logger()


class _FileSource(PydanticBaseSettingsSource):
    """Values from files: `TOKENPOST_X_FILE=/run/secrets/x` stands for the text of that file, stripped."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        variable = f"{ENV_PREFIX}{field_name.upper()}_FILE"
        path = os.environ.get(variable)
        if not path:
            return None, field_name, False
        try:
            value = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingInvalid(f"{variable}: cannot read {path}: {error}") from error
        if not value:
            # Without this an empty file would stand for a secret that everybody knows.
            raise SettingInvalid(f"{variable}: {path} is empty")
        return value, field_name, False

    def __call__(self) -> dict[str, str]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


class _OldNameSource(PydanticBaseSettingsSource):
    """Values of deprecated variables; each that is set is logged."""

    def __init__(self, settings_cls: type[BaseSettings], old_names: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self._old_names = old_names

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        variable = f"{ENV_PREFIX}{self._old_names[field_name].upper()}"
        value = os.environ.get(variable) or None
        if value is not None:
            log.warning("setting_deprecated", name=variable, use=f"{ENV_PREFIX}{field_name.upper()}")
        return value, field_name, False

    def __call__(self) -> dict[str, str]:
        fields = self.settings_cls.model_fields
        found = {name: self.get_field_value(fields[name], name)[0] for name in self._old_names}
        return {name: value for name, value in found.items() if value is not None}


class PlatformSettings(BaseSettings):
    """What every room's Settings share: frozen, from `TOKENPOST_*`, any of them also as `TOKENPOST_*_FILE`.

    old_names: deprecated names of fields, by field; they are read where the new name is not set
    """

    old_names: ClassVar[Mapping[str, str]] = {}
    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then files that the environment names, then deprecated variables."""
        return init_settings, env_settings, _FileSource(settings_cls), _OldNameSource(settings_cls, cls.old_names)

    @classmethod
    def read(cls, **given: Any) -> Self:  # Any: pydantic judges it
        """The settings of this process; SettingInvalid names the first variable that is missing or wrong.

        given: what the environment is not asked for
        """
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            name = ENV_PREFIX + "_".join(str(part) for part in first["loc"]).upper()
            raise SettingInvalid(f"{name}: {first['msg'].removeprefix('Value error, ')}") from error


# A shorter pepper is accepted with a warning: without it the keys that were hashed with it would be lost.
GOOD_PEPPER_CHARACTERS = 16
Pepper = Annotated[SecretStr, Field(min_length=1)]


class StorageSettings(PlatformSettings):
    """Settings of database, Redis, retention and webhooks.

    database_url:        `sqlite:////absolute/path.db` or `postgresql://user:password@host/name`
    redis_url:           `redis://host:port/0`, `rediss://...` or `unix:///absolute/path.sock`
    pepper:              secret that API keys are hashed with, 16 characters or more; losing it loses every key
    job_retention_stored_s: seconds that a job with `store: true` is kept after its end
    job_retention_unstored_s: seconds that a job with `store: false` is kept after its end
    lease_s:             seconds without a heartbeat after which a worker counts as dead
    log_ttl_running_s:   seconds that a running job's event log outlives its last token
    log_ttl_ended_s:     seconds that an ended job's event log is kept; afterwards the row is read
    max_lost_attempts:   lost attempts after which a job fails with `worker_lost`
    files_url:           where the contents of files lie: `s3://bucket/folder` with AWS's own variables, or
                         `file:///absolute/folder`; the database unless set (docs/files.md)
    webhook_allow:       host names, addresses and networks of internal webhook receivers, separated by spaces or
                         commas: any port, http as well
    webhook_allow_http:  whether events may be sent to public receivers over http
    webhook_loopback:    whether this machine may be a receiver while no API key exists
    webhook_retention_s: seconds that webhook deliveries and their attempts are kept
    """

    database_url: str = Field(repr=False)
    redis_url: str = Field(repr=False)
    pepper: Pepper | None = None
    job_retention_stored_s: int = Field(default=30 * 86400, ge=0)
    job_retention_unstored_s: int = Field(default=600, ge=0)
    lease_s: float = Field(default=6.0, gt=0)
    log_ttl_running_s: int = Field(default=86400, ge=1)
    log_ttl_ended_s: int = Field(default=90, ge=1)
    max_lost_attempts: int = Field(default=3, ge=1)
    files_url: str | None = None
    webhook_allow: Annotated[tuple[str, ...], NoDecode] = ()
    webhook_allow_http: bool = False
    webhook_loopback: bool = False
    webhook_retention_s: int = Field(default=30 * 86400, ge=86400)

    @field_validator("database_url")
    @classmethod
    def _database_url_has_a_known_scheme(cls, url: str) -> str:
        return normalise_database_url(url)

    @field_validator("redis_url")
    @classmethod
    def _redis_url_has_a_known_scheme(cls, url: str) -> str:
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return url

    @field_validator("files_url")
    @classmethod
    def _files_url_has_a_known_scheme(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]*(?:/.*)?|file:///.+", url):
            raise ValueError("must be s3://bucket/folder or file:///absolute/folder")
        return url

    @field_validator("webhook_allow", mode="before")
    @classmethod
    def _webhook_allow_is_a_list(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        entries = tuple(given.replace(",", " ").lower().split())
        for entry in entries:
            if not is_allow_entry(entry):
                raise ValueError(f"{entry} is neither a host name nor an address nor a network")
        return entries

    def webhook_policy(self, *, is_open: bool) -> Policy:
        """The URL policy of webhooks: where they may be sent.

        is_open: whether everybody on this machine is let in without a key
        """
        return Policy(
            allowed=self.webhook_allow,
            allows_http=self.webhook_allow_http,
            allows_loopback=self.webhook_loopback and is_open,
        )

    @property
    def retentions_s(self) -> set[int]:
        """Every time for which ended jobs are kept."""
        return {self.job_retention_stored_s, self.job_retention_unstored_s}

    def retention_s(self, store: bool) -> int:
        """Seconds for which a job is kept after its end."""
        return self.job_retention_stored_s if store else self.job_retention_unstored_s


class RequestSettings(StorageSettings):
    """Settings of those who turn requests into jobs: API processes, and the CPU worker for lines of batches.

    max_body_bytes:    larger request bodies are refused
    allow_special_tokens: strings of requests may make control tokens, so that a message can end its own turn
    generation_defaults: `model`: sampling parameters that a request does not name come from the model's
                         `generation_config.json`; `none`: from this program alone (docs/sampling.md)
    batch_retention_s: seconds that batches, without the files of their results, are kept after their end
    """

    max_body_bytes: int = Field(default=10_000_000, ge=1024)
    allow_special_tokens: bool = False
    generation_defaults: Literal["model", "none"] = "model"
    batch_retention_s: int = Field(default=30 * 86400, ge=0)


def normalise_database_url(url: str) -> str:
    """The URL as SQLAlchemy wants it, with the one driver that we use; ValueError for any other database."""
    for prefix in _POSTGRES_PREFIXES:
        if url.startswith(prefix):
            return "postgresql+psycopg://" + url.removeprefix(prefix)
    if url.startswith("sqlite:////") or (
        url.startswith("sqlite:///") and Path(url.removeprefix("sqlite:///")).is_absolute()
    ):
        return url
    raise ValueError("must be sqlite:////absolute/path.db or postgresql://user:password@host/name")
