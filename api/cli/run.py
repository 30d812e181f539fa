"""The commands that run something: `up` everything, `serve` the API alone, `worker` one worker alone."""

import os
from typing import Annotated

import typer

from api.cli.ground import place_of
from api.cli.model_argument import ModelArgument, parse_models
from api.cli.options import (
    MODEL_HELP,
    DatabaseOption,
    Device,
    DeviceOption,
    Dtype,
    DtypeOption,
    HomeOption,
    HostOption,
    KeyRequiredOption,
    PortOption,
    RedisOption,
)
from api.cli.processes import (
    Serving,
    cpu_worker_command,
    generation_environment,
    generation_worker_command,
    place_environment,
)
from api.cli.serve import serve_api
from api.cli.settings import CliSettings, inherited_environment
from api.cli.up import bring_up

# A command has as many arguments as it has options; no type would be missing less.


def up(
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    home: HomeOption = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            envvar="TOKENPOST_MODEL",
            help=f"{MODEL_HELP} May be given again.  [default: demo]",
        ),
    ] = None,
    device: DeviceOption = Device.AUTO,
    dtype: DtypeOption = Dtype.AUTO,
    replicas: Annotated[
        int,
        typer.Option(metavar="N", envvar="TOKENPOST_REPLICAS", min=1, max=64, help="Generation workers of each model."),
    ] = 1,
    redis_url: RedisOption = None,
    database_url: DatabaseOption = None,
    is_key_required: KeyRequiredOption = False,
) -> None:
    """Run the whole platform on this machine until Ctrl-C."""
    serving = Serving(
        place=place_of(home, database_url, redis_url),
        settings=CliSettings.read(),
        models=tuple(parse_models(model or [])),
        host=host,
        port=port,
        replicas=replicas,
        device=device,
        dtype=dtype,
        is_key_required=is_key_required,
    )
    bring_up(serving)


def serve(
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    home: HomeOption = None,
    redis_url: RedisOption = None,
    database_url: DatabaseOption = None,
    is_key_required: KeyRequiredOption = False,
    listener: Annotated[int | None, typer.Option("--fd", hidden=True, help="An inherited listening socket.")] = None,
) -> None:
    """Run the API alone, for several machines."""
    place = place_of(home, database_url, redis_url)
    settings = CliSettings.read()
    variables = place_environment(place, settings) | {
        "TOKENPOST_HOST": host,
        "TOKENPOST_PORT": str(port),
        "TOKENPOST_API_KEY_REQUIRED": str(is_key_required).lower(),
    }
    serve_api(variables, host=host, port=port, listener=listener, drain_grace_s=settings.drain_grace_s)


def worker(
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", envvar="TOKENPOST_MODEL", help=f"{MODEL_HELP}  [default: demo]"),
    ] = None,
    is_cpu: Annotated[
        bool, typer.Option("--cpu", help="Run the CPU worker instead: sweeping and maintenance, no model.")
    ] = False,
    device: DeviceOption = Device.AUTO,
    dtype: DtypeOption = Dtype.AUTO,
    home: HomeOption = None,
    redis_url: RedisOption = None,
    database_url: DatabaseOption = None,
) -> None:
    """Run one worker alone, for several machines."""
    place = place_of(home, database_url, redis_url)
    environment = inherited_environment() | place_environment(place, CliSettings.read())
    if is_cpu:
        command = cpu_worker_command("cpu-worker")
    else:
        served = _served(model)
        command = generation_worker_command(f"worker-{served.name}")
        environment |= generation_environment(served, device=device, dtype=dtype)
    # Celery looks for modules where it stands; the user's folder may hold others of the same names.
    os.chdir(place.home.path)
    os.execve(command[0], command, environment)


def _served(model: str | None) -> ModelArgument:
    return parse_models([model] if model else [])[0]
