"""`tokenpost doctor`: checks of disk, Redis, database, pepper, models and device, with advice."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from api.cli.home import Home, is_locked
from api.cli.models import hugging_face
from api.cli.models.local_models import ModelFolder
from api.cli.models.model_argument import ModelArgument, ModelArgumentInvalid, parse_models
from api.cli.models.packages import PACKAGES
from api.cli.settings import CliSettings, HuggingFaceSettings, Location, read_pepper
from api.cli.supervisor import redis_server
from storage.database.connections import Database
from storage.database.schema_version import is_current
from storage.errors import PlatformError
from storage.settings import GOOD_PEPPER_CHARACTERS

_MIN_FREE_DISK_BYTES = 2_000_000_000
# Run in another process: this one must not load torch.
_DEVICE_QUESTION = """
import json, torch
cuda = torch.cuda.is_available()
name = torch.cuda.get_device_name(0) if cuda else f"{torch.get_num_threads()} threads"
print(json.dumps({"torch": torch.__version__, "device": "cuda" if cuda else "cpu", "name": name}))
"""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check; `advice` says what to do when it failed."""

    name: str
    is_ok: bool
    fact: str
    advice: str | None = None


def examine_infrastructure(location: Location, settings: CliSettings) -> list[Finding]:
    """Checks of disk, Redis, database and pepper."""
    return [
        _check_disk(location.home),
        _check_redis(location),
        _check_database(location),
        _check_pepper(location.home, settings),
    ]


def examine_models(models: Sequence[str], folder: ModelFolder) -> list[Finding]:
    """One finding for each model, as `--model` takes them; none means the default one."""
    return [_check_model(model, folder) for model in models or [""]]


def _check_disk(home: Home) -> Finding:
    folder = next(path for path in (home.path, *home.path.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    fact = f"{free / 1e9:.1f} GB free for {home.path}"
    if free < _MIN_FREE_DISK_BYTES:
        return Finding(name="disk", is_ok=False, fact=fact, advice="free some space, or choose another --home")
    return Finding(name="disk", is_ok=True, fact=fact)


def _check_redis(location: Location) -> Finding:
    if location.is_embedded and not is_locked(location.home):
        try:
            program = redis_server.find_program()
        except PlatformError as error:
            return Finding(name="redis", is_ok=False, fact="no server on this machine", advice=error.message)
        return Finding(name="redis", is_ok=True, fact=f"not running; `tokenpost up` starts {program.title}")
    try:
        return Finding(name="redis", is_ok=True, fact=f"{redis_server.check(location.redis_url)} answers")
    except PlatformError as error:
        advice = "start it, or correct --redis-url (TOKENPOST_REDIS_URL)"
        return Finding(name="redis", is_ok=False, fact=error.message, advice=advice)


def _check_database(location: Location) -> Finding:
    path = location.database_url.removeprefix("sqlite:///")
    if path != location.database_url and not Path(path).exists():
        return Finding(name="database", is_ok=True, fact=f"not there yet; `tokenpost up` makes {path}")
    try:
        database = Database(location.database_url)
        is_new = is_current(database)
        database.dispose()
    except PlatformError as error:
        advice = "start it, or correct --database-url (TOKENPOST_DATABASE_URL)"
        return Finding(name="database", is_ok=False, fact=error.message, advice=advice)
    if not is_new:
        return Finding(
            name="database", is_ok=False, fact="its tables are of another version", advice="tokenpost db upgrade"
        )
    return Finding(name="database", is_ok=True, fact="answers; its tables are up to date")


def _check_pepper(home: Home, settings: CliSettings) -> Finding:
    if settings.pepper is None and not home.pepper_file.exists():
        return Finding(name="pepper", is_ok=True, fact=f"not there yet; `tokenpost up` makes {home.pepper_file}")
    try:
        num_characters = len(read_pepper(settings, home))
    except (PlatformError, OSError, ValueError) as error:
        advice = f"put back {home.pepper_file} from a backup; keys that were made with another one are not valid"
        return Finding(name="pepper", is_ok=False, fact=str(error), advice=advice)
    if num_characters < GOOD_PEPPER_CHARACTERS:
        advice = f"choose one of {GOOD_PEPPER_CHARACTERS} characters or more, then make every API key again"
        return Finding(name="pepper", is_ok=False, fact=f"{num_characters} characters can be guessed", advice=advice)
    return Finding(name="pepper", is_ok=True, fact="long enough")


def _check_model(argument: str, folder: ModelFolder) -> Finding:
    try:
        model = parse_models([argument] if argument else [])[0]
        fact = _local_fact(Path(model.source)) if model.is_local else _remote_fact(model, folder)
    except PlatformError as error:
        return Finding(name="model", is_ok=False, fact=error.message, advice="name a whole model with --model")
    return Finding(name="model", is_ok=True, fact=f"{model.name}: {fact}")


def _local_fact(path: Path) -> str:
    if path.is_file():
        return f"{path.stat().st_size / 1e6:.1f} MB, {path}"
    size_bytes = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    return f"{size_bytes / 1e6:.1f} MB in {path}"


def _remote_fact(model: ModelArgument, folder: ModelFolder) -> str:
    """Whether a model is fetched; ModelArgumentInvalid when it is not and Hugging Face is off."""
    package = PACKAGES.get(model.source)
    if package is not None:
        if package.is_whole_in(folder.files):
            return _local_fact(package.source_in(folder.files))
        return "not fetched yet; its first start does that" + (", or serves demo" if model.is_default else "")
    source = hugging_face.find_source(model.source)
    if source is not None:
        return f"downloaded, in {source}"
    if HuggingFaceSettings().is_offline:
        raise ModelArgumentInvalid(f"{model.source} is not downloaded, and HF_HUB_OFFLINE forbids to fetch it")
    return "not downloaded yet; its first start does that"


def examine_device() -> Finding:
    """The device of generation workers on this machine; takes seconds, since another process loads PyTorch."""
    if importlib.util.find_spec("torch") is None:
        advice = "pip install 'tokenpost[torch]' where generation workers run; an API machine needs none"
        return Finding(name="device", is_ok=False, fact="PyTorch is not installed", advice=advice)
    command = [sys.executable, "-c", _DEVICE_QUESTION]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(name="device", is_ok=False, fact=f"PyTorch does not load: {error}", advice="install it anew")
    reported = msgspec.json.decode(answer, type=_Device)
    return Finding(name="device", is_ok=True, fact=f"{reported.device} ({reported.name}), PyTorch {reported.torch}")


class _Device(msgspec.Struct, frozen=True):
    torch: str
    device: str
    name: str
