"""A model is described without torch, and as it then runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from storage.errors import ModelUnsupported
from tests.model.conftest import LIMITS
from tests.model.encoder.tiny_encoder import MAX_LEN, make_encoder
from tests.model.gguf.files import make_gguf
from tests.model.tiny import CONTEXT_LENGTH, make_tiny
from workers.model.describe import describe
from workers.model.load import load


def test_the_description_is_printed_without_torch(tmp_path: Path) -> None:
    path = make_gguf(tmp_path, "qwen3", tie_word_embeddings=True)
    code = (
        "import runpy, sys; sys.argv = ['describe', sys.argv[1]]; "
        "runpy.run_module('workers.model.describe', run_name='__main__'); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )

    printed = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)

    found = json.loads(printed.stdout)
    assert (found["architecture"], found["runs"], found["licence"]) == ("qwen3", "native", "apache-2.0")
    assert (found["context_length"], found["reason"]) == (CONTEXT_LENGTH, None)
    assert found["memory_bytes"] > 400 << 20


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "gpt2"])
def test_a_folder_is_described_as_it_runs(model_type: str, tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "model", model_type)

    found, loaded = describe(str(folder), "float32"), load(str(folder), device="cpu", limits=LIMITS)

    assert (found.runs == "native") == ("kernels: weights" in loaded.description)
    assert f"{(found.num_parameters or 0) / 1e6:.1f}M parameters" in loaded.description


def test_a_gguf_file_and_the_folder_that_it_was_made_of_are_described_alike(tmp_path: Path) -> None:
    path = make_gguf(tmp_path, "llama", tie_word_embeddings=True)

    file, folder = describe(str(path), "bfloat16"), describe(str(tmp_path / "original"), "bfloat16")

    assert file.num_parameters == folder.num_parameters
    assert file.memory_bytes == folder.memory_bytes
    assert (file.runs, file.dtype) == (folder.runs, folder.dtype) == ("native", "bfloat16")


def test_a_model_for_embeddings_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "model", "llama")
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": ["BertModel"]}))
    (folder / "model.safetensors").write_bytes((8).to_bytes(8, "little") + b"{}      ")

    described = describe(str(folder), "float32")
    with pytest.raises(ModelUnsupported) as refused:
        load(str(folder), device="cpu", limits=LIMITS)

    assert described.runs == "refused"
    assert described.reason == refused.value.message
    assert refused.value.message.startswith("The model has no language-model head (BertModel), and its folder does not")


def test_an_encoder_says_what_it_is_without_its_weights(tmp_path: Path) -> None:
    described = describe(str(make_encoder(tmp_path)), "float32")

    assert (described.runs, described.architecture, described.context_length) == ("torch", "bert", MAX_LEN)
    assert described.reason == "it is an encoder, whose texts torch computes"


def test_what_cannot_run_says_why(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "model", "llama")
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"is_encoder_decoder": True}))

    assert describe(str(folder), "float32").reason == "Encoder-decoder models are not supported"
    assert describe(str(tmp_path / "nothing.gguf"), "float32").runs == "refused"
    absent = describe("nobody/nothing", "float32")
    assert (absent.runs, absent.reason) == (None, "nobody/nothing is not on this machine: pull it first")
