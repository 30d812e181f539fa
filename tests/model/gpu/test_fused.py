"""Fused layers compute what the layers that they stand for compute."""

from pathlib import Path

import pytest
import torch

from tests.model.gpu.machines import read
from tests.model.tiny import make_tiny
from workers.model.gpu.fused import fuse_linears

TOKEN_IDS = torch.arange(4, 40).unsqueeze(0)


@pytest.mark.parametrize("model_type", ["qwen3", "qwen2", "llama", "mistral"])
def test_queries_keys_and_values_and_gate_and_up_become_one_product_each(tmp_path: Path, model_type: str) -> None:
    model = read(make_tiny(tmp_path, model_type))
    with torch.inference_mode():
        expected = model(TOKEN_IDS).logits

    num_fused = fuse_linears(model, model_type)

    assert num_fused == 2 * model.config.num_hidden_layers
    with torch.inference_mode():
        assert torch.allclose(model(TOKEN_IDS).logits, expected, atol=1e-4)
    assert not any(name.endswith("k_proj.weight") for name, _ in model.named_parameters())


def test_biases_are_kept(tmp_path: Path) -> None:
    model = read(make_tiny(tmp_path, "qwen2"))
    layer = model.get_decoder().layers[0].self_attn
    with torch.no_grad():
        for linear in (layer.q_proj, layer.k_proj, layer.v_proj):
            linear.bias.normal_()
    with torch.inference_mode():
        expected = model(TOKEN_IDS).logits
        fuse_linears(model, "qwen2")

        assert torch.allclose(model(TOKEN_IDS).logits, expected, atol=1e-4)


def test_models_of_unknown_structure_stay_as_they_are(tmp_path: Path) -> None:
    model = read(make_tiny(tmp_path, "gemma2"))

    assert fuse_linears(model, "gemma2") == 0
