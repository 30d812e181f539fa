"""The commands that run one process, for several machines: `serve` the API, `worker` one worker."""

import os
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from api.cli.console import make_error_console, print_progress
from api.cli.key_notice import key_notice
from api.cli.models.failures import store_failures
from api.cli.models.fetching import fetch
from api.cli.models.local_models import ModelFolder
from api.cli.models.model_argument import ModelArgument, parse_models
from api.cli.open_database import location_of, opened
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
from api.cli.settings import CliSettings, Location, inherited_environment, model_folder_of
from api.cli.supervisor.processes import (
    api_command,
    api_environment,
    cpu_worker_command,
    generation_environment,
    generation_worker_command,
    location_environment,
)
from api.cli.supervisor.screen import Screen
from storage.errors import PlatformError

# A command function has one argument for each option.


def serve(
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    home: HomeOption = None,
    redis_url: RedisOption = None,
    database_url: DatabaseOption = None,
    is_key_required: KeyRequiredOption = False,
) -> None:
    """Run the API alone, for several machines."""
    location = location_of(home, database_url, redis_url)
    settings = CliSettings.read()
    with opened(location) as database:
        key_notice(settings, database, host=host, is_key_required=is_key_required)
    environment = api_environment(location, settings, host=host, port=port, is_key_required=is_key_required)
    _become(location, api_command(), environment)


def worker(
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", envvar="TOKENPOST_MODEL", help=f"{MODEL_HELP}  [default: smollm2]"),
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
    location = location_of(home, database_url, redis_url)
    if is_cpu:
        _become(location, cpu_worker_command(), location_environment(location))
    served, folder = parse_models([model] if model else [])[0], model_folder_of(CliSettings.read(), location.home)
    served = _fetched(served, folder, location)
    environment = generation_environment(served, folder, device=device, dtype=dtype)
    environment |= location_environment(location)
    _become(location, generation_worker_command(f"worker-{served.name}"), environment)


def _fetched(model: ModelArgument, folder: Path, location: Location) -> ModelArgument:
    """The model with a source on this machine; a failure is also stored, for the callers of the API."""
    screen = Screen(make_error_console())
    try:
        return fetch(model, ModelFolder(path=folder).files, screen)
    except PlatformError as error:
        try:
            store_failures(location, {model.name: error.message})
        except PlatformError as unstored:
            print_progress(f"the API cannot show it: {unstored.message}")
        raise
    finally:
        screen.quiet()


def _become(location: Location, command: tuple[str, ...], environment: dict[str, str]) -> NoReturn:
    """Execute the command in the home folder: Python imports from the working directory, and the user's folder may
    hold modules of the same names.
    """
    location.home.create()
    os.chdir(location.home.path)
    os.execve(command[0], command, inherited_environment() | environment)
