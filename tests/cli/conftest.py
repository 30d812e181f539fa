"""A home with a database in it, and a way to run commands on it."""

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli.home import Home
from api.cli.main import app
from storage.database.connections import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # Any: the shape is what the test asserts
        """The answer of a command run with --json."""
        return json.loads(self.out)


Run = Callable[..., Said]

_HEADER = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
# A safetensors file with one tensor of two numbers.
WHOLE_WEIGHTS = struct.pack("<Q", len(_HEADER)) + _HEADER + b"\0" * 8


@pytest.fixture(autouse=True)
def bare_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting and no downloaded model of the person who runs the tests."""
    for name in os.environ:
        if name.startswith(("TOKENPOST_", "HF_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder that looks like a model, with an equals sign in its path."""
    folder = tmp_path / "of=models" / "tiny"
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(WHOLE_WEIGHTS)
    return folder


@pytest.fixture
def home(tmp_path: Path, sqlite_template: Path) -> Home:
    """A home with a migrated, empty database."""
    made = Home(path=tmp_path / "home")
    made.create()
    shutil.copyfile(sqlite_template, made.path / "tokenpost.db")
    return made


@pytest.fixture
def home_database(home: Home) -> Iterator[Database]:
    """The home's database."""
    opened = Database(home.database_url)
    yield opened
    opened.dispose()


@pytest.fixture
def run(home: Home, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `tokenpost ARGUMENTS` in this process, on the home and on a real Redis."""
    monkeypatch.setenv("TOKENPOST_HOME", str(home.path))
    monkeypatch.setenv("TOKENPOST_REDIS_URL", redis_url)

    def invoke(*arguments: str) -> Said:
        result = CliRunner().invoke(app, arguments)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(code=result.exit_code, out=result.stdout, err=result.stderr)

    return invoke
