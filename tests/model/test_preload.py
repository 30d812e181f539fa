from pathlib import Path

from tests.model.gguf.files import make_gguf
from tests.model.tiny import make_tiny
from workers.fork_service import needs_transformers
from workers.model.load import load
from workers.model.native.library import Library
from workers.model.resources.memory_options import LoadLimits


def test_only_models_without_a_record_need_transformers(library: Library, shared_folder: Path, tmp_path: Path) -> None:
    kernels = shared_folder / "native"
    model = make_tiny(tmp_path / "model")
    environment = {"TOKENPOST_MODEL": str(model), "TOKENPOST_KERNEL_FOLDER": str(kernels)}
    assert needs_transformers(environment)

    load(str(model), device="cpu", limits=LoadLimits(max_len=128, kernel_folder=kernels))

    assert not needs_transformers(environment)
    assert not needs_transformers(environment | {"TOKENPOST_DTYPE": "auto"})
    assert needs_transformers(environment | {"TOKENPOST_DTYPE": "bfloat16"})
    assert needs_transformers(environment | {"TOKENPOST_NATIVE": "false"})


def test_a_gguf_file_needs_transformers_until_it_is_converted_and_recorded(
    library: Library, shared_folder: Path, tmp_path: Path
) -> None:
    kernels, models = shared_folder / "native", tmp_path / "models"
    path = make_gguf(tmp_path)
    environment = {
        "TOKENPOST_MODEL": str(path),
        "TOKENPOST_KERNEL_FOLDER": str(kernels),
        "TOKENPOST_MODEL_FOLDER": str(models),
    }
    assert needs_transformers(environment)

    load(str(path), device="cpu", limits=LoadLimits(max_len=128, kernel_folder=kernels, model_folder=models))

    assert not needs_transformers(environment)


def test_what_is_wrong_with_a_model_is_left_to_its_worker(tmp_path: Path) -> None:
    assert needs_transformers({"TOKENPOST_MODEL": str(tmp_path / "nothing")})
    assert needs_transformers({"TOKENPOST_MODEL": "organization/model", "TOKENPOST_DTYPE": "float16"})
