"""Texts of quantised GGUF files are those of transformers on the numbers that the file stands for."""

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType
from transformers import AutoModelForCausalLM, PreTrainedModel

from storage.contract import SamplingParams
from tests.engine.checked import ids_of, run
from tests.model.conftest import LIMITS
from tests.model.gguf.files import ARCHITECTURE_BY_MODEL_TYPE, write_gguf
from tests.model.tiny import make_tiny
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceRequest
from workers.model.load import load

KINDS = [GGMLQuantizationType[name] for name in ("Q8_0", "Q4_0", "Q4_1", "Q5_1", "Q4_K", "Q6_K", "F16", "BF16")]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
# Rows of at least 256 numbers, which is a block of the K formats.
SIZES: dict[str, object] = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "head_dim": 64}
MODELS: dict[str, dict[str, object]] = {
    "llama": {"rope_parameters": LLAMA3},
    "qwen3": {"tie_word_embeddings": True},
    "gemma3_text": {"tie_word_embeddings": True, "query_pre_attn_scalar": 64, "sliding_window": 8},
}


def reference(original: Path, path: Path) -> PreTrainedModel:
    """The original with the file's numbers, read by `gguf`'s own reader."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(original, dtype=torch.float32).eval()
    config = model.config
    architecture = ARCHITECTURE_BY_MODEL_TYPE.get(config.model_type, config.model_type)
    kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name, parameter in model.named_parameters():
        tensor = stored[names.get_name(name, try_suffixes=(".weight", ".bias"))]
        values = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(parameter.shape)
        if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            values = values.reshape(heads, -1, 2, parameter.shape[1]).swapaxes(1, 2).reshape(parameter.shape)
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            values = values - np.float32(1.0)
        parameter.data.copy_(torch.from_numpy(np.array(values, np.float32)))
    return model


@pytest.mark.parametrize("model_type", MODELS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_quantised_file_says_what_its_numbers_say_in_transformers(
    model_type: str, kind: GGMLQuantizationType, tmp_path: Path
) -> None:
    original = make_tiny(tmp_path / "original", model_type, **(SIZES | MODELS[model_type]))
    path = write_gguf(original, tmp_path / "model.gguf", quantization=kind)
    expected = reference(original, path)
    prompts = [tuple(range(5, 25)), (7,), tuple(n * 7919 % 390 for n in range(60))]
    greedy = SamplingParams(max_tokens=20, min_tokens=20, temperature=0.0)

    loaded = load(str(path), device="cpu", dtype="float32", limits=replace(LIMITS, model_folder=tmp_path / "models"))
    requests = [SequenceRequest(sequence_id=str(len(one)), prompt=one, sampling=greedy) for one in prompts]
    outputs = run(Engine(loaded.runner, loaded.text, loaded.limits), *requests)

    for prompt in prompts:
        ids = torch.tensor([prompt])
        whole = expected.generate(  # type: ignore[operator]  # typed by a mixin
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, min_new_tokens=20, do_sample=False
        )
        assert ids_of(outputs[str(len(prompt))]) == whole[0, len(prompt) :].tolist()
