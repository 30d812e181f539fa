"""The options that several commands share, each with its environment variable."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Device(StrEnum):
    """Where a model runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Dtype(StrEnum):
    """The numbers that a model computes with."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", envvar="TOKENPOST_HOME", help="Folder for database, logs and secrets.  [default: ~/.tokenpost]"
    ),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        envvar="TOKENPOST_DATABASE_URL",
        help="postgresql://user:password@host/name or sqlite:////path.  [default: SQLite in the home]",
    ),
]
RedisOption = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        metavar="URL",
        envvar="TOKENPOST_REDIS_URL",
        help="redis://host:port/0 or unix:///path.  [default: the embedded one of the home]",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
HostOption = Annotated[
    str, typer.Option("--host", metavar="ADDRESS", envvar="TOKENPOST_HOST", help="Address to listen on.")
]
PortOption = Annotated[
    int,
    typer.Option(
        "--port",
        metavar="N",
        envvar="TOKENPOST_PORT",
        min=0,
        max=65535,
        help="TCP port to listen on; 0 takes a free one.",
    ),
]
KeyRequiredOption = Annotated[
    bool,
    typer.Option("--api-key-required", envvar="TOKENPOST_API_KEY_REQUIRED", help="Ask for a key on loopback too."),
]
DeviceOption = Annotated[Device, typer.Option("--device", envvar="TOKENPOST_DEVICE", help="Where the model runs.")]
DtypeOption = Annotated[
    Dtype,
    typer.Option("--dtype", envvar="TOKENPOST_DTYPE", help="Its numbers; auto is float32 on CPU and bfloat16 on CUDA."),
]
MODEL_HELP = (
    "[NAME=]MODEL: smollm2, demo, a folder, a GGUF file, or of Hugging Face ORG/REPO or ORG/REPO:FILE.gguf; "
    "it is served under NAME if given."
)
