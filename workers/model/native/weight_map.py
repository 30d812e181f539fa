"""Weight map: a network as the kernels compute it, with each weight by its name in the model's files.

It can be stored: a later start makes the decoder from the map and the files, without transformers.
"""

import msgspec


class WeightRef(msgspec.Struct, frozen=True):
    """Rows of a tensor of the model.

    last: the row after them; None is all to the end
    """

    name: str
    first: int = 0
    last: int | None = None


class LayerMap(msgspec.Struct, frozen=True, kw_only=True):
    """The weights of one layer; None where it has no such part. The fields are those of `library.Layer`."""

    query: WeightRef
    key: WeightRef
    value: WeightRef
    output: WeightRef
    gate: WeightRef
    up: WeightRef
    down: WeightRef
    query_bias: WeightRef | None
    key_bias: WeightRef | None
    value_bias: WeightRef | None
    output_bias: WeightRef | None
    input_norm: WeightRef | None
    attention_norm: WeightRef | None
    feedforward_norm: WeightRef | None
    feedforward_out_norm: WeightRef | None
    query_norm: WeightRef | None
    key_norm: WeightRef | None
    window: int
    rotary_table: int


class Rotary(msgspec.Struct, frozen=True, kw_only=True):
    """A rotary embedding whose angles do not depend on the length of the sequence.

    frequencies: float32, half as many as numbers of a head are rotated
    scaling:     factor of cosines and sines
    """

    frequencies: tuple[float, ...]
    scaling: float


class WeightMap(msgspec.Struct, frozen=True, kw_only=True):
    """A whole network. Sizes count numbers; the first fields are those of `library.Shape`.

    norm_offset: added to the weights of every norm: 1 in Gemma, whose norms count from one
    rotaries:    at most two; layers name theirs by index
    """

    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    activation: int
    norm_epsilon: float
    attention_scale: float
    embedding_scale: float
    attention_softcap: float
    logit_softcap: float
    norm_offset: float
    layers: tuple[LayerMap, ...]
    rotaries: tuple[Rotary, ...]
    embedding: WeightRef
    head: WeightRef
    final_norm: WeightRef

    def tensor_names(self) -> set[str]:
        """The names of all tensors that the network needs."""
        refs = [self.embedding, self.head, self.final_norm]
        for layer in self.layers:
            refs += [ref for ref in msgspec.structs.astuple(layer) if isinstance(ref, WeightRef)]
        return {ref.name for ref in refs}
