from pathlib import Path

import pytest

from tests.model.gguf.files import make_gguf
from tests.model.tiny import make_tiny
from workers.model.load import load
from workers.model.native.library import Library
from workers.model.resources.memory_options import LoadLimits
from workers.preload import needs_transformers


def test_only_models_without_a_record_need_transformers(
    library: Library, shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = shared_folder / "native"
    model = make_tiny(tmp_path / "model")
    monkeypatch.setenv("TOKENPOST_KERNEL_FOLDER", str(kernels))
    assert needs_transformers(str(model), "auto")

    load(str(model), device="cpu", limits=LoadLimits(max_len=128, kernel_folder=kernels))

    assert not needs_transformers(str(model), "auto")
    assert needs_transformers(str(model), "bfloat16")
    monkeypatch.setenv("TOKENPOST_NATIVE", "false")
    assert needs_transformers(str(model), "auto")


def test_a_gguf_file_needs_transformers_until_it_is_converted_and_recorded(
    library: Library, shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels, models = shared_folder / "native", tmp_path / "models"
    path = make_gguf(tmp_path)
    monkeypatch.setenv("TOKENPOST_KERNEL_FOLDER", str(kernels))
    monkeypatch.setenv("TOKENPOST_MODEL_FOLDER", str(models))
    assert needs_transformers(str(path), "auto")

    load(str(path), device="cpu", limits=LoadLimits(max_len=128, kernel_folder=kernels, model_folder=models))

    assert not needs_transformers(str(path), "auto")


def test_what_is_wrong_with_a_model_is_left_to_its_worker(tmp_path: Path) -> None:
    assert needs_transformers(str(tmp_path / "nothing"), "auto")
    assert needs_transformers("organization/model", "float16")
