"""Settings of the command line, and the location of the platform that a command addresses."""

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from api.cli.home import Home, is_locked
from api.cli.state import read_state
from storage.errors import SettingInvalid
from storage.settings import Pepper, PlatformSettings, normalise_database_url

DEFAULT_HOME = Path("~/.tokenpost")
# OpenMP's threads wait for each other after every operation. With endless spinning a waiting thread takes the core from
# the one it waits for as soon as anything else runs; without spinning an idle machine computes at half the speed
# (bench/README.md).
_SPINS = {"GOMP_SPINCOUNT": "10000"}
_SPIN_NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
# Where torch computes, oneDNN keeps what it compiled for each shape of a matrix product, and torch keeps it once more:
# by default 1,024 shapes each, some 150 KiB a shape. Steps differ in how many tokens they have.
_CACHES = {"LRU_CACHE_CAPACITY": "64", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}
_PER_WORKER = ("TOKENPOST_MODEL", "TOKENPOST_SERVED_NAME", "TOKENPOST_WORKER_ID")


class CliSettings(PlatformSettings):
    """Settings from the environment; command options override them.

    home:                folder of database, logs and secrets
    model_folder:        folder of pulled models (`files`) and of models converted from GGUF (`converted`)
    redis_max_memory_mb: memory at which the embedded Redis refuses to write, MiB
    start_timeout_s:     how long `up` waits for Redis, the database and the API; models may load longer
    url:                 address of the API that `tokenpost batches` calls
    drain_grace_s:       how long running jobs may finish when the platform stops
    lease_s:             a worker whose beat is older counts as dead
    """

    home: Path = DEFAULT_HOME
    model_folder: Path | None = None
    database_url: str | None = Field(default=None, repr=False)
    redis_url: str | None = Field(default=None, repr=False)
    pepper: Pepper | None = None
    url: str | None = None
    api_key: SecretStr | None = None
    redis_max_memory_mb: int = Field(default=1024, ge=16)
    start_timeout_s: float = Field(default=60.0, gt=0)
    drain_grace_s: float = Field(default=20.0, ge=0)
    lease_s: float = Field(default=6.0, gt=0)


class HuggingFaceSettings(BaseSettings):
    """Hugging Face's own variables that the commands read."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    hf_home: Path = Path("~/.cache/huggingface")
    download_folder: Path | None = Field(default=None, validation_alias="HF_HUB_CACHE")
    is_offline: bool = Field(default=False, validation_alias="HF_HUB_OFFLINE")
    endpoint: str | None = Field(default=None, validation_alias="HF_ENDPOINT")

    @property
    def cache(self) -> Path:
        """The folder of downloaded models."""
        return (self.download_folder or self.hf_home / "hub").expanduser()


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """The home, database and Redis of one platform.

    is_embedded: whether `redis_url` is the Redis that `tokenpost up` runs in this home
    """

    home: Home
    database_url: str
    redis_url: str
    is_embedded: bool


def find_location(
    settings: CliSettings, *, home: Path | None, database_url: str | None, redis_url: str | None
) -> Location:
    """The platform that a command addresses: by its options, else the environment, else what runs in the home."""
    home_ = Home(path=(home or settings.home).expanduser().absolute())
    running = read_state(home_) if is_locked(home_) else None
    database = database_url or settings.database_url or (running.database_url if running else home_.database_url)
    redis = redis_url or settings.redis_url or (running.redis_url if running else home_.redis_url)
    try:
        database = normalise_database_url(database)
    except ValueError as error:
        raise SettingInvalid(f"TOKENPOST_DATABASE_URL: {error}") from error
    if not redis.startswith(("redis://", "rediss://", "unix://")):
        raise SettingInvalid("TOKENPOST_REDIS_URL: must begin with redis://, rediss:// or unix://")
    return Location(home=home_, database_url=database, redis_url=redis, is_embedded=redis == home_.redis_url)


def model_folder_of(settings: CliSettings, home: Home) -> Path:
    """The folder of pulled and converted models, as an absolute path."""
    return (settings.model_folder or home.models).expanduser().absolute()


def read_pepper(settings: CliSettings, home: Home) -> bytes:
    """The secret that API keys are hashed with: the setting, else the home's own, created when there is none."""
    if settings.pepper is not None:
        return settings.pepper.get_secret_value().encode()
    path = home.ensure_pepper()
    pepper = path.read_text(encoding="ascii").strip().encode()
    if not pepper:
        raise SettingInvalid(f"TOKENPOST_PEPPER: {path} is empty")
    return pepper


def inherited_environment() -> dict[str, str]:
    """This process' environment for a child, without the variables that are set for each worker."""
    own = _CACHES | {name: value for name, value in os.environ.items() if name not in _PER_WORKER}
    return own if any(name in own for name in _SPIN_NAMES) else own | _SPINS
