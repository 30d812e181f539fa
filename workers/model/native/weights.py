"""A transformers model in the form that the kernels need: sizes, weights and rotary tables."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from workers.model.architecture.attention_layer import AttentionLayer
from workers.model.native.library import GELU_TANH, SILU, Layer, OuterWeights, Shape

# Decoders whose layers are built as the kernels compute them. Whatever this table promises too much, the check at
# load finds out: its logits are compared with those of the unchanged model.
_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3", "phi3", "gemma2", "gemma3_text"})
# The others depend on how long a sequence is.
_STATIC_ROPE = frozenset({"default", "linear", "llama3", "yarn"})
_ACTIVATIONS = {"silu": SILU, "gelu_pytorch_tanh": GELU_TANH}
_DTYPES = (torch.float32, torch.bfloat16)
_MAX_HEAD_DIM = 256

# What transformers' modules are made of, only their classes tell, one for each architecture.
Part = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A model's sizes and weights, as the library takes them.

    owners:  tensors that lie behind the pointers; needed until the decoder is made
    lasting: those of them that the decoder goes on reading: embeddings and rotary tables
    """

    shape: Shape
    layers: list[Layer]
    outer: OuterWeights
    owners: list[Tensor]
    lasting: list[Tensor]


def weights_of(model: PreTrainedModel, layers: list[AttentionLayer], max_len: int) -> Weights | None:
    """The model's weights, None when its architecture is not one that the kernels compute."""
    config = model.config
    activation = getattr(config, "hidden_act", None) or getattr(config, "hidden_activation", None)
    is_known = (
        config.model_type in _FAMILIES
        and model.dtype in _DTYPES
        and activation in _ACTIVATIONS
        and all(rope.get("rope_type", "default") in _STATIC_ROPE for rope in _ropes(config))
        and len({layer.shape for layer in layers}) == 1
        and layers[0].shape.head_dim <= _MAX_HEAD_DIM
        and not getattr(config, "mlp_bias", False)
    )
    return _Collector(model).collect(layers, max_len, _ACTIVATIONS[str(activation)]) if is_known else None


def _ropes(config: PreTrainedConfig) -> list[dict[str, object]]:
    """Rotary parameters, of each layer type where these differ."""
    rope = getattr(config, "rope_parameters", None) or {}
    return [rope] if "rope_type" in rope else [one for one in rope.values() if isinstance(one, dict)]


class _Collector:
    """Collects pointers and the tensors that own their memory."""

    def __init__(self, model: Part) -> None:
        self._model = model
        self._config = model.config
        self._decoder: Part = model.get_decoder()
        self._is_gemma = self._config.model_type.startswith("gemma")
        self._owners: list[Tensor] = []

    def collect(self, layers: list[AttentionLayer], max_len: int, activation: int) -> Weights:
        embedding = self._model.get_input_embeddings().weight.detach().contiguous()
        layer_types = self._layer_types()
        tables = [self._rotary(layer_type, max_len) for layer_type in layer_types]
        outer = OuterWeights(
            embedding=embedding.data_ptr(),
            head=self._keep(self._model.get_output_embeddings().weight),
            final_norm=self._norm(self._decoder.norm),
            cosines=tuple(cosines.data_ptr() for cosines, _ in tables),
            sines=tuple(sines.data_ptr() for _, sines in tables),
        )
        return Weights(
            shape=self._shape(layers[0], max_len, tables[0][0].shape[1], activation),
            layers=[
                self._layer(layer, attention, layer_types)
                for layer, attention in zip(self._decoder.layers, layers, strict=True)
            ],
            outer=outer,
            owners=self._owners,
            lasting=[embedding, *(table for pair in tables for table in pair)],
        )

    def _shape(self, layer: AttentionLayer, max_len: int, rotary_dim: int, activation: int) -> Shape:
        config = self._config
        # Gemma rounds the factor to the embeddings' type.
        factor = torch.tensor(config.hidden_size**0.5, dtype=self._model.dtype).item() if self._is_gemma else 1.0
        return Shape(
            num_layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_heads=config.num_attention_heads,
            num_kv_heads=layer.shape.num_kv_heads,
            head_dim=layer.shape.head_dim,
            rotary_dim=rotary_dim,
            vocab_size=config.vocab_size,
            max_len=max_len,
            activation=activation,
            is_bf16=int(self._model.dtype == torch.bfloat16),
            norm_epsilon=config.rms_norm_eps,
            attention_scale=layer.module.scaling,
            embedding_scale=factor,
            attention_softcap=layer.softcap or 0.0,
            logit_softcap=getattr(config, "final_logit_softcapping", None) or 0.0,
        )

    def _layer(self, layer: Part, attention: AttentionLayer, layer_types: list[str]) -> Layer:
        own, mlp = layer.self_attn, layer.mlp
        query, key, value = self._heads(own, attention)
        gate, up = (mlp.gate_up_proj.weight.chunk(2)) if hasattr(mlp, "gate_up_proj") else _weights(mlp, "gate", "up")
        before, after, out = (
            (layer.pre_feedforward_layernorm, layer.post_attention_layernorm, layer.post_feedforward_layernorm)
            if self._is_gemma
            else (layer.post_attention_layernorm, None, None)
        )
        return Layer(
            query=self._keep(query),
            key=self._keep(key),
            value=self._keep(value),
            output=self._keep(own.o_proj.weight),
            gate=self._keep(gate),
            up=self._keep(up),
            down=self._keep(mlp.down_proj.weight),
            query_bias=self._bias(own, "q_proj"),
            key_bias=self._bias(own, "k_proj"),
            value_bias=self._bias(own, "v_proj"),
            output_bias=self._bias(own, "o_proj"),
            input_norm=self._norm(layer.input_layernorm),
            attention_norm=self._norm(after),
            feedforward_norm=self._norm(before),
            feedforward_out_norm=self._norm(out),
            query_norm=self._norm(getattr(own, "q_norm", None)),
            key_norm=self._norm(getattr(own, "k_norm", None)),
            window=attention.window or 0,
            rotary_table=self._table_of(own, layer_types),
        )

    def _heads(self, own: Part, attention: AttentionLayer) -> tuple[Tensor, ...]:
        """Weights of queries, keys and values."""
        if not hasattr(own, "qkv_proj"):
            return _weights(own, "q", "k", "v")
        size = attention.shape.head_dim
        sizes = [self._config.num_attention_heads * size, *2 * [attention.shape.num_kv_heads * size]]
        parts: tuple[Tensor, ...] = own.qkv_proj.weight.split(sizes)
        return parts

    def _layer_types(self) -> list[str]:
        """Layer types that turn by tables of their own, at most two; one name where all turn alike."""
        types = getattr(self._config, "layer_types", None) or []
        has_own = "rope_type" not in (getattr(self._config, "rope_parameters", None) or {"rope_type": "default"})
        return sorted(set(types)) if has_own else [""]

    def _table_of(self, own: Part, layer_types: list[str]) -> int:
        if not getattr(own, "use_rope", True):
            return -1
        return layer_types.index(getattr(own, "layer_type", "")) if len(layer_types) > 1 else 0

    def _rotary(self, layer_type: str, max_len: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of every position, [max_len, rotary_dim], by the model's own module."""
        arguments = (layer_type,) if layer_type else ()
        with torch.inference_mode():
            cosines, sines = self._decoder.rotary_emb(torch.zeros(1, 1), torch.arange(max_len).unsqueeze(0), *arguments)
        return cosines[0].float().contiguous(), sines[0].float().contiguous()

    def _bias(self, own: Part, name: str) -> int | None:
        bias = getattr(getattr(own, name, None), "bias", None)
        return None if bias is None else self._keep(bias.float())

    def _norm(self, norm: Part | None) -> int | None:
        """Gemma's norms count from one."""
        if norm is None:
            return None
        weight = norm.weight.detach().float()
        return self._keep(weight + 1.0 if self._is_gemma else weight)

    def _keep(self, tensor: Tensor) -> int:
        tensor = tensor.detach().contiguous()
        self._owners.append(tensor)
        return tensor.data_ptr()


def _weights(module: Part, *names: str) -> tuple[Tensor, ...]:
    return tuple(getattr(module, f"{name}_proj").weight for name in names)
