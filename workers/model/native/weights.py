"""Weights for the kernels: pointers to the tensors that a weight map names, a layer at a time."""

from collections.abc import Callable
from functools import partial

import msgspec
import torch
from torch import Tensor

from workers.model.native.library import Layer, OuterWeights, Shape
from workers.model.native.weight_map import Rotary, WeightMap, WeightRef
from workers.model.resources.mapped_weights import MappedWeights

# Gives a tensor of the model by its name.
ReadTensor = Callable[[str], Tensor]

_BIASES = frozenset({"query_bias", "key_bias", "value_bias", "output_bias"})


class Weights:
    """What the library is given of a model, layer after layer, so that it is in memory once.

    Matrices are in the given type, norms and biases in float32.

    outer:   pointers to what is no layer's
    lasting: tensors that the decoder goes on reading: embeddings and rotary tables
    """

    def __init__(self, weight_map: WeightMap, read: ReadTensor, dtype: torch.dtype, max_len: int) -> None:
        """Read what is no layer's.

        dtype:   float32 or bfloat16
        max_len: positions of the rotary tables
        """
        self.num_layers = len(weight_map.layers)
        self.shape = _shape(weight_map, dtype, max_len)
        self._map = weight_map
        outside = _Collector(read, dtype, weight_map.norm_offset)
        embedding = outside.tensor(weight_map.embedding)
        # Tied weights are converted once.
        is_tied = weight_map.head == weight_map.embedding
        head = embedding if is_tied else outside.tensor(weight_map.head)
        tables = [rotary_tables(rotary, torch.arange(max_len)) for rotary in weight_map.rotaries]
        self.outer = OuterWeights(
            embedding=embedding.data_ptr(),
            head=head.data_ptr(),
            final_norm=outside.norm(weight_map.final_norm),
            cosines=tuple(cosines.data_ptr() for cosines, _ in tables),
            sines=tuple(sines.data_ptr() for _, sines in tables),
        )
        self.lasting = [embedding, *(table for pair in tables for table in pair)]
        self._outside = outside
        self._collect = partial(_Collector, read, dtype, weight_map.norm_offset)
        self._layer = self._collect()

    def layer(self, index: int) -> Layer:
        """The pointers of a layer, good until the next one is asked for; KeyError for a tensor that is not there."""
        # What is no layer's was packed before the first one is asked for.
        self._outside.release()
        self._layer.release()
        self._layer = self._collect()
        parts = msgspec.structs.asdict(self._map.layers[index])
        return Layer(**{name: self._layer.field(name, value) for name, value in parts.items()})

    def release(self) -> None:
        """Release everything but `lasting`, once the decoder is made."""
        self._layer.release()
        self._outside.release()


def rotary_tables(rotary: Rotary, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the positions, [num_positions, rotary_dim] float32 each."""
    angles = positions.float().unsqueeze(-1) * torch.tensor(rotary.frequencies, dtype=torch.float32)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos() * rotary.scaling, angles.sin() * rotary.scaling


def _shape(weight_map: WeightMap, dtype: torch.dtype, max_len: int) -> Shape:
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
        is_bf16=int(dtype == torch.bfloat16),
        norm_epsilon=weight_map.norm_epsilon,
        attention_scale=weight_map.attention_scale,
        embedding_scale=weight_map.embedding_scale,
        attention_softcap=weight_map.attention_softcap,
        logit_softcap=weight_map.logit_softcap,
    )


class _Collector:
    """Collects pointers and the tensors that own their memory."""

    def __init__(self, read: ReadTensor, dtype: torch.dtype, norm_offset: float) -> None:
        self._read = read
        self._dtype = dtype
        self._norm_offset = norm_offset
        self._owners: list[Tensor] = []
        # What the model's files hold; the owners may be conversions of it.
        self._stored: list[Tensor] = []

    def field(self, name: str, value: WeightRef | int | None) -> int | None:
        """A pointer, or the number that it is."""
        if not isinstance(value, WeightRef):
            return value
        if name.endswith("_norm"):
            return self.norm(value)
        weights = self.tensor(value)
        return (self._keep(weights.float()) if name in _BIASES else weights).data_ptr()

    def norm(self, ref: WeightRef) -> int:
        """A norm's weights, as factors."""
        weight = self._read(ref.name).float()
        # The files keep norms in the model's own type, and rounding to the served one comes before the offset.
        return self._keep(weight.to(self._dtype).float() + self._norm_offset).data_ptr()

    def tensor(self, ref: WeightRef) -> Tensor:
        """Rows of a matrix, rounded to the served type, as transformers does at load."""
        rows = self._read(ref.name).detach()[ref.first : ref.last]
        self._stored.append(rows)
        return self._keep(rows.to(self._dtype))

    def release(self) -> None:
        """Drop the tensors, and the pages of the files in which they lie."""
        MappedWeights().release(self._stored)
        self._owners.clear()
        self._stored.clear()

    def _keep(self, tensor: Tensor) -> Tensor:
        tensor = tensor.contiguous()
        self._owners.append(tensor)
        return tensor
