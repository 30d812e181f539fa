"""The platform's processes: command lines and environments."""

import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from api.cli.models.model_argument import ModelArgument
from api.cli.settings import CliSettings, Location, inherited_environment, model_folder_of
from api.cli.supervisor.child import ChildSpec, Role
from api.cli.supervisor.early_fork_server import ENGINE_POOL, OUTPUT, STOP_SLACK_S
from api.cli.supervisor.redis_server import RedisProgram, server_command
from api.settings import is_loopback_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Options of one `tokenpost up`: models, address and location.

    failures: models that should be served and could not be fetched, with the reasons
    """

    location: Location
    settings: CliSettings
    models: tuple[ModelArgument, ...]
    host: str
    port: int
    replicas: int
    device: str
    dtype: str
    is_key_required: bool
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The `base_url` for clients on this machine."""
        # Clients cannot connect to 0.0.0.0 and ::.
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(
            self.host, f"[{self.host}]" if ":" in self.host else self.host
        )
        return f"http://{host}:{self.port}/v1"


def api_command(listener: int | None = None) -> tuple[str, ...]:
    """The API, on an inherited listening socket or on the address of its settings."""
    return (sys.executable, "-m", "api.server.entry_point", *([] if listener is None else [str(listener)]))


def cpu_worker_command() -> tuple[str, ...]:
    """The sweeper and the webhook sender."""
    return (sys.executable, "-m", "workers.cpu")


def generation_worker_command(name: str) -> tuple[str, ...]:
    """Celery with the engine as its pool; queue and concurrency are set by the worker's own settings."""
    return (*_celery("workers.gpu", name), "-P", "custom")


def generation_environment(model: ModelArgument, model_folder: Path, *, device: str, dtype: str) -> dict[str, str]:
    """Environment variables of a generation worker."""
    return {
        **ENGINE_POOL,
        "TOKENPOST_MODEL": model.source,
        "TOKENPOST_SERVED_NAME": model.name,
        "TOKENPOST_MODEL_FOLDER": str(model_folder),
        "TOKENPOST_DEVICE": device,
        "TOKENPOST_DTYPE": dtype,
    }


def location_environment(location: Location) -> dict[str, str]:
    """Environment variables with home, database and Redis, for every process."""
    return {
        "TOKENPOST_HOME": str(location.home.path),
        "TOKENPOST_DATABASE_URL": location.database_url,
        "TOKENPOST_REDIS_URL": location.redis_url,
    }


def api_environment(
    location: Location, settings: CliSettings, *, host: str, port: int, is_key_required: bool
) -> dict[str, str]:
    """Environment variables of the API: location, address and pepper."""
    pepper = {} if settings.pepper is not None else {"TOKENPOST_PEPPER_FILE": str(location.home.ensure_pepper())}
    return (
        location_environment(location)
        | pepper
        | {
            "TOKENPOST_HOST": host,
            "TOKENPOST_PORT": str(port),
            "TOKENPOST_API_KEY_REQUIRED": str(is_key_required).lower(),
        }
    )


def redis_spec(program: RedisProgram, serving: Serving, *, lock: int) -> ChildSpec:
    """The embedded Redis; it inherits the home's lock."""
    home = serving.location.home
    return ChildSpec(
        name="redis",
        role=Role.REDIS,
        command=server_command(program, home, serving.settings.redis_max_memory_mb),
        environment=inherited_environment(),
        folder=home.path,
        log=home.log_file("redis"),
        stop_grace_s=STOP_SLACK_S,
        descriptors=(lock,),
    )


def api_spec(serving: Serving, listener: int) -> ChildSpec:
    """The API on a socket that the supervisor holds, so that a restart refuses no connection."""
    variables = api_environment(
        serving.location,
        serving.settings,
        host=serving.host,
        port=serving.port,
        is_key_required=serving.is_key_required,
    ) | {"TOKENPOST_EXPECTED_MODELS": ",".join([*(model.name for model in serving.models), *serving.failures])}
    return ChildSpec(
        name="api",
        role=Role.API,
        command=api_command(listener),
        environment=_environment(serving, variables),
        folder=serving.location.home.path,
        log=serving.location.home.log_file("api"),
        stop_grace_s=serving.settings.drain_grace_s + STOP_SLACK_S,
        descriptors=(listener,),
    )


def cpu_worker_spec(serving: Serving) -> ChildSpec:
    """The CPU worker."""
    return _worker_spec(serving, "cpu-worker", cpu_worker_command(), None)


def generation_worker_specs(serving: Serving) -> list[ChildSpec]:
    """Every generation worker: `replicas` of each model."""
    specs = []
    for model in serving.models:
        for replica in range(1, serving.replicas + 1):
            name = f"worker-{model.name}" + (f"-{replica}" if serving.replicas > 1 else "")
            specs.append(_worker_spec(serving, name, generation_worker_command(name), model))
    return specs


def _worker_spec(serving: Serving, name: str, command: tuple[str, ...], model: ModelArgument | None) -> ChildSpec:
    variables = {}
    if model is not None:
        folder = model_folder_of(serving.settings, serving.location.home)
        variables = generation_environment(model, folder, device=serving.device, dtype=serving.dtype)
        variables["TOKENPOST_PROGRESS_FILE"] = str(serving.location.home.progress_file(name))
    return ChildSpec(
        name=name,
        role=Role.GENERATION_WORKER if model else Role.CPU_WORKER,
        command=command,
        environment=_environment(serving, variables),
        folder=serving.location.home.path,
        log=serving.location.home.log_file(name),
        stop_grace_s=serving.settings.drain_grace_s + STOP_SLACK_S,
        model=model.name if model else None,
    )


def _celery(app: str, name: str) -> tuple[str, ...]:
    node = f"{name}@{socket.gethostname()}"
    # Celery's gossip, mingle and heartbeat are off: they add messages between workers and nothing uses them.
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    return (sys.executable, "-m", "celery", "-q", "-A", app, "worker", "-n", node, *quiet)


def _environment(serving: Serving, variables: Mapping[str, str]) -> dict[str, str]:
    location = location_environment(serving.location)
    # While callers on this machine need no key, webhooks to loopback are allowed; the first key ends that.
    is_open = is_loopback_name(serving.host) and not serving.is_key_required
    defaults = {"TOKENPOST_WEBHOOK_LOOPBACK": str(is_open).lower()} | inherited_environment()
    return defaults | location | dict(variables) | OUTPUT
