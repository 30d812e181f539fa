"""What a model is and whether it runs here, as the process `python -m workers.model.describe` says."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import msgspec

from api.cli.console import print_progress
from api.cli.settings import inherited_environment
from storage.errors import PlatformError
from storage.model_manifest import ModelDescription
from storage.process.atomic_file import replace_file

_TIMEOUT_S = 120.0
_FILE = "descriptions.json"


class DescriptionMissing(PlatformError):
    """A model could not be examined."""

    code = "description_missing"


class _Kept(msgspec.Struct, frozen=True):
    """A description, and the files and version that it is of."""

    stamp: str
    description: ModelDescription


class Descriptions:
    """Descriptions of models, each asked once for its files and this version."""

    def __init__(self, folder: Path) -> None:
        """folder: of pulled and converted models, where the answers are kept"""
        self._folder = folder
        self._file = folder / _FILE
        self._kept = self._read()

    def find(self, source: Path) -> ModelDescription | None:
        """The description of a GGUF file or a folder that was asked before; costs nothing."""
        kept = self._kept.get(str(source))
        return kept.description if kept is not None and kept.stamp == _stamp_of(source) else None

    def get(self, source: Path) -> ModelDescription:
        """The description, asked now where it is not known, which takes seconds; DescriptionMissing says why not."""
        found = self.find(source)
        if found is not None:
            return found
        description = _ask(source, self._folder)
        self._kept[str(source)] = _Kept(_stamp_of(source), description)
        self._write()
        return description

    def _read(self) -> dict[str, _Kept]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, _Kept])
        except (FileNotFoundError, msgspec.MsgspecError):
            return {}

    def _write(self) -> None:
        kept = {source: one for source, one in self._kept.items() if Path(source).exists()}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_file(self._file, msgspec.json.encode(kept))
        except OSError as error:
            # It is asked again the next time.
            print_progress(f"{self._file} cannot be written: {error.strerror}")


def _stamp_of(source: Path) -> str:
    """Changes with the version of this program and with the files of the model."""
    files = [source] if source.is_file() else sorted(file for file in source.iterdir() if file.is_file())
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return f"{version('tokenpost')} {states}"


def _ask(source: Path, folder: Path) -> ModelDescription:
    # -P: the working directory is the user's, and may hold modules of the same names.
    command = [sys.executable, "-P", "-m", "workers.model.describe", str(source)]
    environment = inherited_environment() | {"TOKENPOST_MODEL_FOLDER": str(folder)}
    try:
        asked = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        return msgspec.json.decode(asked.stdout.encode(), type=ModelDescription)
    except subprocess.TimeoutExpired as error:
        raise DescriptionMissing(f"no answer within {_TIMEOUT_S:.0f} s") from error
    except msgspec.MsgspecError as error:
        line = next(iter(reversed(asked.stderr.strip().splitlines())), "no answer")
        raise DescriptionMissing(line) from error
