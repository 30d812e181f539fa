"""Where a model's files are: the bundled model, a local folder, or a Hugging Face id."""

from pathlib import Path

import workers.model
from storage.errors import ModelFilesMissing, ModelUnsupported

BUNDLED = "demo"
BUNDLED_FOLDER = Path(workers.model.__path__[0]) / "demo"


def source_of(model: str) -> str:
    """What transformers is to load: a folder that holds a model, or an id for it to look up and download.

    Raises ModelFilesMissing and ModelUnsupported for a folder that is not there or holds something else.
    """
    if model == BUNDLED:
        return str(_checked(BUNDLED_FOLDER, "make it with `make demo-model`"))
    folder = Path(model).expanduser()
    if folder.is_dir():
        return str(_checked(folder, "give the folder that holds config.json and the .safetensors files"))
    if folder.exists():
        raise ModelUnsupported(f"{model} is a file: give the folder that holds config.json and the .safetensors files")
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ModelFilesMissing(f"There is no folder {model}")
    return model


def _checked(folder: Path, hint: str) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelFilesMissing(f"There is no config.json in {folder}: {hint}")
    if not any(folder.glob("*.safetensors")):
        raise ModelFilesMissing(f"There are no .safetensors weights in {folder} (no other format is read): {hint}")
    return folder
