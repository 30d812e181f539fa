"""A transformers model as the kernels compute it: its weight map, or None for another architecture."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from workers.model.architecture.attention_layer import AttentionLayer
from workers.model.architecture.families import native_obstacle
from workers.model.native.library import GELU_TANH, SILU
from workers.model.native.weight_map import LayerMap, Rotary, WeightMap, WeightRef
from workers.model.native.weights import rotary_tables

_ACTIVATIONS = {"silu": SILU, "gelu_pytorch_tanh": GELU_TANH}
_NUM_CHECKED_POSITIONS = 64

# What transformers' modules are made of, only their classes tell, one for each architecture.
Part = Any


def map_of(model: PreTrainedModel, layers: list[AttentionLayer]) -> WeightMap | None:
    """The model's weight map, None when its architecture is not one that the kernels compute.

    layers: its attention layers, as the probe saw them
    """
    config = model.config
    activation = getattr(config, "hidden_act", None) or getattr(config, "hidden_activation", None)
    facts = config.to_dict() | {"head_dim": layers[0].shape.head_dim}
    is_known = (
        native_obstacle(facts, str(model.dtype).removeprefix("torch.")) is None
        and activation in _ACTIVATIONS
        and len({layer.shape for layer in layers}) == 1
    )
    return _Mapper(model).map(layers, _ACTIVATIONS[str(activation)]) if is_known else None


class _Mapper:
    """Finds each part of the network in the modules of the model."""

    def __init__(self, model: Part) -> None:
        self._model = model
        self._config = model.config
        self._decoder: Part = model.get_decoder()
        self._is_gemma = self._config.model_type.startswith("gemma")
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}

    def map(self, layers: list[AttentionLayer], activation: int) -> WeightMap | None:
        """None where the rotary embedding computes something else than its parameters say."""
        config = self._config
        layer_types = self._layer_types()
        rotaries = [self._rotary(layer_type) for layer_type in layer_types]
        known = tuple(rotary for rotary in rotaries if rotary is not None)
        if len(known) < len(rotaries):
            return None
        # Gemma rounds the factor to the embeddings' type.
        factor = torch.tensor(config.hidden_size**0.5, dtype=self._model.dtype).item() if self._is_gemma else 1.0
        return WeightMap(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_heads=config.num_attention_heads,
            num_kv_heads=layers[0].shape.num_kv_heads,
            head_dim=layers[0].shape.head_dim,
            vocab_size=config.vocab_size,
            activation=activation,
            norm_epsilon=config.rms_norm_eps,
            attention_scale=float(layers[0].module.scaling),  # type: ignore[arg-type]  # a number on each attention module
            embedding_scale=factor,
            attention_softcap=layers[0].softcap or 0.0,
            logit_softcap=getattr(config, "final_logit_softcapping", None) or 0.0,
            norm_offset=1.0 if self._is_gemma else 0.0,
            layers=tuple(
                self._layer(layer, attention, layer_types)
                for layer, attention in zip(self._decoder.layers, layers, strict=True)
            ),
            rotaries=known,
            embedding=self._weight(self._model.get_input_embeddings()),
            head=self._weight(self._model.get_output_embeddings()),
            final_norm=self._weight(self._decoder.norm),
        )

    def _layer(self, layer: Part, attention: AttentionLayer, layer_types: list[str]) -> LayerMap:
        own, mlp = layer.self_attn, layer.mlp
        query, key, value = self._heads(own, attention)
        gate, up = self._gate_and_up(mlp)
        before, after, out = (
            (layer.pre_feedforward_layernorm, layer.post_attention_layernorm, layer.post_feedforward_layernorm)
            if self._is_gemma
            else (layer.post_attention_layernorm, None, None)
        )
        return LayerMap(
            query=query,
            key=key,
            value=value,
            output=self._weight(own.o_proj),
            gate=gate,
            up=up,
            down=self._weight(mlp.down_proj),
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

    def _heads(self, own: Part, attention: AttentionLayer) -> tuple[WeightRef, WeightRef, WeightRef]:
        """Weights of queries, keys and values."""
        if not hasattr(own, "qkv_proj"):
            return self._weight(own.q_proj), self._weight(own.k_proj), self._weight(own.v_proj)
        name = self._weight(own.qkv_proj).name
        num_queries = self._config.num_attention_heads * attention.shape.head_dim
        num_keys = attention.shape.width
        ends = num_queries, num_queries + num_keys
        return WeightRef(name, 0, ends[0]), WeightRef(name, *ends), WeightRef(name, ends[1])

    def _gate_and_up(self, mlp: Part) -> tuple[WeightRef, WeightRef]:
        if not hasattr(mlp, "gate_up_proj"):
            return self._weight(mlp.gate_proj), self._weight(mlp.up_proj)
        name, half = self._weight(mlp.gate_up_proj).name, self._config.intermediate_size
        return WeightRef(name, 0, half), WeightRef(name, half)

    def _layer_types(self) -> list[str]:
        """Layer types that turn by tables of their own, at most two; one name where all turn alike."""
        types = getattr(self._config, "layer_types", None) or []
        has_own = "rope_type" not in (getattr(self._config, "rope_parameters", None) or {"rope_type": "default"})
        return sorted(set(types)) if has_own else [""]

    def _table_of(self, own: Part, layer_types: list[str]) -> int:
        if not getattr(own, "use_rope", True):
            return -1
        return layer_types.index(getattr(own, "layer_type", "")) if len(layer_types) > 1 else 0

    def _rotary(self, layer_type: str) -> Rotary | None:
        """The rotary embedding of a layer type; None where the module computes other cosines and sines."""
        module: Part = self._decoder.rotary_emb
        prefix = f"{layer_type}_" if layer_type else ""
        frequencies: Tensor = getattr(module, f"{prefix}inv_freq").float()
        rotary = Rotary(
            frequencies=tuple(frequencies.tolist()), scaling=float(getattr(module, f"{prefix}attention_scaling"))
        )
        length = self._config.max_position_embeddings
        positions = torch.cat([torch.arange(_NUM_CHECKED_POSITIONS), torch.arange(length)[-_NUM_CHECKED_POSITIONS:]])
        with torch.inference_mode():
            found = module(torch.zeros(1, 1), positions.unsqueeze(0), *([layer_type] if layer_type else []))
        expected = rotary_tables(rotary, positions)
        is_same = all(torch.equal(one[0].float(), table) for one, table in zip(found, expected, strict=True))
        return rotary if is_same else None

    def _weight(self, module: Part) -> WeightRef:
        return WeightRef(self._names[id(module.weight)])

    def _norm(self, module: Part | None) -> WeightRef | None:
        return None if module is None else self._weight(module)

    def _bias(self, own: Part, name: str) -> WeightRef | None:
        bias = getattr(getattr(own, name, None), "bias", None)
        return None if bias is None else WeightRef(self._names[id(bias)])
