"""A later start of a model reads its weights alone and computes the same bits."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.model.conftest import LIMITS
from tests.model.test_native import FAMILIES
from tests.model.tiny import make_tiny
from workers.model import load as module
from workers.model.load import LoadedModel, is_recorded, load
from workers.model.start_record import StartRecord, tensors_of
from workers.model.validation import validation_ids, validation_logits

_LOAD = """
import sys
from dataclasses import replace
from pathlib import Path
from workers.model.load import load
from workers.model.resources.memory_options import LoadLimits
limits = LoadLimits(max_running=6, max_len=128, max_batch_tokens=64, num_threads=1, kernel_folder=Path(sys.argv[2]))
load(sys.argv[1], device="cpu", limits=limits)
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "transformers"}))
"""


@pytest.fixture
def folder(library_path: Path, tmp_path: Path) -> Path:
    """A kernel folder with the kernels of this test run, and no records."""
    folder = tmp_path / "kernels"
    folder.mkdir(mode=0o700)
    (folder / library_path.name).symlink_to(library_path)
    return folder


def load_from(model: Path, folder: Path) -> LoadedModel:
    return load(str(model), device="cpu", limits=replace(LIMITS, kernel_folder=folder))


def logits(loaded: LoadedModel) -> Tensor:
    return validation_logits(loaded.runner, validation_ids(400))


@pytest.fixture
def no_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that would read the model with transformers fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("the model was read with transformers")

    monkeypatch.setattr(module, "_load_with_transformers", refuse)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("is_tied", [False, True])
def test_the_second_start_computes_the_same_bits(
    family: str, is_tied: bool, folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = make_tiny(tmp_path / "model", family, tie_word_embeddings=is_tied, **FAMILIES[family])
    first = load_from(model, folder)
    request.getfixturevalue("no_transformers")
    second = load_from(model, folder)

    assert torch.equal(logits(first), logits(second))
    assert second.manifest == first.manifest
    assert second.limits == first.limits
    assert second.description.partition(" loaded in")[0] == first.description.partition(" loaded in")[0]


def test_the_second_start_imports_no_transformers(tiny_folder: Path, folder: Path) -> None:
    loaded = [
        subprocess.run(
            [sys.executable, "-c", _LOAD, str(tiny_folder), str(folder)], check=True, capture_output=True, text=True
        ).stdout.splitlines()[-1]
        for _ in range(2)
    ]

    assert loaded == ["torch transformers", "torch"]


def test_a_record_counts_only_for_the_files_that_it_was_made_of(folder: Path, tmp_path: Path) -> None:
    model = make_tiny(tmp_path / "model")
    load_from(model, folder)
    assert is_recorded(str(model), "float32", folder, folder)
    assert not is_recorded(str(model), "bfloat16", folder, folder)

    config = model / "config.json"
    config.write_text(config.read_text() + "\n")

    assert not is_recorded(str(model), "float32", folder, folder)


def test_a_torn_record_is_made_again(folder: Path, tmp_path: Path) -> None:
    model = make_tiny(tmp_path / "model")
    expected = logits(load_from(model, folder))
    (record,) = folder.glob("start-*")
    record.write_bytes(record.read_bytes()[:1000])

    assert torch.equal(logits(load_from(model, folder)), expected)
    assert is_recorded(str(model), "float32", folder, folder)


def test_a_library_that_computes_something_else_is_found_out(folder: Path, tmp_path: Path) -> None:
    model = make_tiny(tmp_path / "model")
    load_from(model, folder)
    record = StartRecord(folder, str(model), torch.float32)
    recorded = record.read()
    assert recorded is not None
    facts, native = recorded
    record.write(facts, replace(native, expected=-native.expected), tensors_of(model))

    assert "kernels: weights" in load_from(model, folder).description
    assert torch.equal(record.read()[1].expected, native.expected)  # type: ignore[index]  # it was just recorded


def test_a_model_whose_files_hold_other_tensors_is_not_recorded(folder: Path, tmp_path: Path) -> None:
    model = make_tiny(tmp_path / "model")
    load_from(model, folder)
    record = StartRecord(folder, str(model), torch.float32)
    recorded = record.read()
    assert recorded is not None
    (path,) = folder.glob("start-*")
    path.unlink()
    read = tensors_of(model)

    record.write(*recorded, lambda name: read(name) + 1)

    assert not record.exists()
