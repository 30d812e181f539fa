"""The command `up`: reads its options and starts the fork server, then imports what runs the platform.

This file and what it imports are all that a start reads before the fork server begins. Keep them few.
"""

import importlib
import importlib.util
import os
from typing import Annotated

import typer

from api.cli.listener import listen
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
from api.cli.settings import CliSettings, find_location
from api.cli.supervisor.early_fork_server import early_fork_server
from storage.errors import PlatformError
from storage.process.garbage_collection import without_collection


class TorchMissing(PlatformError):
    """The generation worker's libraries are not installed."""

    code = "torch_missing"


# A command function has one argument for each option.
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
            help=f"{MODEL_HELP} May be given again.  [default: smollm2]",
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
    # Rows, logs and sockets hold users' texts: only this user may read them.
    os.umask(0o077)
    if importlib.util.find_spec("torch") is None:
        raise TorchMissing("the generation worker needs PyTorch: pip install 'tokenpost[torch]'")
    settings = CliSettings.read()
    location = find_location(settings, home=home, database_url=database_url, redis_url=redis_url)
    location.home.create()
    with (
        location.home.lock() as lock,
        listen(host, port) as listener,
        early_fork_server(location.home) as fork_server,
    ):
        with without_collection():
            # Imported here because it takes half a second, in which the fork server imports torch.
            module = importlib.import_module("api.cli.supervisor.up")
        serving = module.Serving(
            location=location,
            settings=settings,
            models=tuple(module.parse_models(model or [])),
            host=host,
            # Port 0 asks for any free one.
            port=listener.getsockname()[1],
            replicas=replicas,
            device=device,
            dtype=dtype,
            is_key_required=is_key_required,
        )
        module.bring_up(serving, listener=listener, lock=lock, fork_server=fork_server)
