"""Weights of a mapped file are in main memory once: packed by the kernels, or as pages of the file."""

import gc
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from tests.model.conftest import LIMITS
from tests.model.tiny import make_tiny
from workers.engine.memory import BLOCK_SIZE
from workers.model.architecture.probe import attention_layers
from workers.model.load import load
from workers.model.native.assembly import native_bytes_per_token
from workers.model.native.decoder import Decoder
from workers.model.native.library import Library, Limits
from workers.model.native.mapping import map_of
from workers.model.native.weights import Weights
from workers.model.resources.mapped_weights import MappedWeights

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="needs /proc")


def resident_bytes(file: Path) -> int:
    """Bytes of the file's mappings that are in this process' memory."""
    total, is_its = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_its = line.endswith(str(file))
        elif is_its and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def test_released_pages_are_read_again_where_they_are_needed(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    numbers = torch.arange(1 << 20, dtype=torch.float32)
    save_file({"a": numbers, "b": numbers + 1}, file)
    with safe_open(file, framework="pt") as opened:
        tensors = [opened.get_tensor(name) for name in ("a", "b")]
    sums = [float(tensor.sum()) for tensor in tensors]
    before = resident_bytes(file)

    MappedWeights().release(tensors[:1])

    assert before >= 8 << 20
    assert resident_bytes(file) <= (4 << 20) + (1 << 16)
    assert [float(tensor.sum()) for tensor in tensors] == sums


def test_tensors_of_no_file_are_left_alone() -> None:
    numbers = torch.arange(1 << 20, dtype=torch.float32)

    MappedWeights().release([numbers])

    assert float(numbers[-1]) == (1 << 20) - 1


def test_a_loaded_model_leaves_no_page_of_its_file_but_of_the_embedding(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "model", "llama", hidden_size=256, intermediate_size=1024, num_hidden_layers=4)

    loaded = load(str(folder), device="cpu", limits=LIMITS)
    gc.collect()

    assert "kernels: weights" in loaded.description
    file = folder / "model.safetensors"
    assert file.stat().st_size > 13 << 20
    assert resident_bytes(file) < 1 << 20


def anonymous_bytes() -> int:
    """Bytes of this process' memory that no file backs."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_a_decoder_takes_no_more_memory_than_its_numbers(tmp_path: Path, library: Library) -> None:
    """Matrices of odd sizes share huge pages; in pages of their own these would waste 40 MiB."""
    sizes = {"hidden_size": 320, "intermediate_size": 1000, "num_hidden_layers": 12}
    model = AutoModelForCausalLM.from_pretrained(make_tiny(tmp_path / "m", "llama", **sizes), dtype=torch.float32)
    weight_map = map_of(model, attention_layers(model))
    read = dict(model.named_parameters()).__getitem__
    assert weight_map is not None
    num_blocks = 600
    limits = Limits(num_threads=1, num_spins=1, max_batch_tokens=64, num_blocks=num_blocks, max_logit_rows=64)
    weights = Weights(weight_map, read, torch.float32, 32)
    before = anonymous_bytes()

    decoder = Decoder(library, weights, limits)

    cache = num_blocks * BLOCK_SIZE * native_bytes_per_token(weight_map, torch.float32)
    assert anonymous_bytes() - before < sum(decoder.memory()) + cache + (6 << 20)


def test_a_layer_that_cannot_be_read_ends_the_start(tmp_path: Path, library: Library) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_tiny(tmp_path / "model"), dtype=torch.float32)
    weight_map = map_of(model, attention_layers(model))
    parameters = dict(model.named_parameters())
    del parameters["model.layers.1.mlp.up_proj.weight"]
    limits = Limits(num_threads=1, num_spins=1, max_batch_tokens=8, num_blocks=1, max_logit_rows=1)

    assert weight_map is not None
    with pytest.raises(KeyError, match=r"layers\.1\.mlp\.up_proj"):
        Decoder(library, Weights(weight_map, parameters.__getitem__, torch.float32, 32), limits)
