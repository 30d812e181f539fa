"""Weights for the kernels: pointers to the tensors that a weight map names."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor

from workers.model.native.library import Layer, OuterWeights, Shape
from workers.model.native.weight_map import LayerMap, Rotary, WeightMap, WeightRef

# Gives a tensor of the model by its name.
ReadTensor = Callable[[str], Tensor]

_BIASES = frozenset({"query_bias", "key_bias", "value_bias", "output_bias"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What the library is given of a model.

    owners:  tensors that lie behind the pointers; needed until the decoder is made
    lasting: those that the decoder goes on reading: embeddings and rotary tables
    """

    shape: Shape
    layers: list[Layer]
    outer: OuterWeights
    owners: list[Tensor]
    lasting: list[Tensor]


def weights_of(weight_map: WeightMap, read: ReadTensor, dtype: torch.dtype, max_len: int) -> Weights:
    """The weights: matrices in the given type, norms and biases in float32.

    dtype:   float32 or bfloat16
    max_len: positions of the rotary tables
    """
    return _Collector(weight_map, read, dtype).collect(max_len)


def rotary_tables(rotary: Rotary, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the positions, [num_positions, rotary_dim] float32 each."""
    angles = positions.float().unsqueeze(-1) * torch.tensor(rotary.frequencies, dtype=torch.float32)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos() * rotary.scaling, angles.sin() * rotary.scaling


class _Collector:
    """Collects pointers and the tensors that own their memory."""

    def __init__(self, weight_map: WeightMap, read: ReadTensor, dtype: torch.dtype) -> None:
        self._map = weight_map
        self._read = read
        self._dtype = dtype
        self._owners: list[Tensor] = []

    def collect(self, max_len: int) -> Weights:
        weight_map = self._map
        embedding = self._tensor(weight_map.embedding, self._dtype)
        # Tied weights are converted once.
        is_tied = weight_map.head == weight_map.embedding
        head = embedding if is_tied else self._tensor(weight_map.head, self._dtype)
        tables = [rotary_tables(rotary, torch.arange(max_len)) for rotary in weight_map.rotaries]
        outer = OuterWeights(
            embedding=embedding.data_ptr(),
            head=head.data_ptr(),
            final_norm=self._norm(weight_map.final_norm),
            cosines=tuple(cosines.data_ptr() for cosines, _ in tables),
            sines=tuple(sines.data_ptr() for _, sines in tables),
        )
        return Weights(
            shape=self._shape(max_len),
            layers=[self._layer(layer) for layer in weight_map.layers],
            outer=outer,
            owners=self._owners,
            lasting=[embedding, *(table for pair in tables for table in pair)],
        )

    def _shape(self, max_len: int) -> Shape:
        weight_map = self._map
        return Shape(
            num_layers=len(weight_map.layers),
            hidden_size=weight_map.hidden_size,
            intermediate_size=weight_map.intermediate_size,
            num_heads=weight_map.num_heads,
            num_kv_heads=weight_map.num_kv_heads,
            head_dim=weight_map.head_dim,
            rotary_dim=2 * len(weight_map.rotaries[0].frequencies),
            vocab_size=weight_map.vocab_size,
            max_len=max_len,
            activation=weight_map.activation,
            is_bf16=int(self._dtype == torch.bfloat16),
            norm_epsilon=weight_map.norm_epsilon,
            attention_scale=weight_map.attention_scale,
            embedding_scale=weight_map.embedding_scale,
            attention_softcap=weight_map.attention_softcap,
            logit_softcap=weight_map.logit_softcap,
        )

    def _layer(self, layer: LayerMap) -> Layer:
        return Layer(**{name: self._field(name, value) for name, value in msgspec.structs.asdict(layer).items()})

    def _field(self, name: str, value: WeightRef | int | None) -> int | None:
        """A pointer, or the number that it is."""
        if not isinstance(value, WeightRef):
            return value
        if name.endswith("_norm"):
            return self._norm(value)
        return self._tensor(value, torch.float32 if name in _BIASES else self._dtype).data_ptr()

    def _norm(self, ref: WeightRef) -> int:
        weight = self._read(ref.name).float()
        # The files keep norms in the model's own type, and rounding to the served one comes before the offset.
        return self._keep(weight.to(self._dtype).float() + self._map.norm_offset).data_ptr()

    def _tensor(self, ref: WeightRef, dtype: torch.dtype) -> Tensor:
        rows = self._read(ref.name).detach()[ref.first : ref.last]
        # Rounded to the served type first, as transformers does at load.
        return self._keep(rows.to(self._dtype).to(dtype))

    def _keep(self, tensor: Tensor) -> Tensor:
        tensor = tensor.contiguous()
        self._owners.append(tensor)
        return tensor
