"""BERT, RoBERTa and XLM-R by few large operations: queries, keys and values at once, sums and GELU inside of products.

Runs on oneDNN, on a CPU. A text of 30 tokens takes as long as the weights take to be read, and then each call counts:
the layers of transformers make forty for each layer, these make ten. Whoever builds it compares its vectors with those
of the unmodified model.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertModel, PreTrainedModel, RobertaModel, XLMRobertaModel

from workers.model.encoder.encoder_network import Batch, first_position_of
from workers.model.encoder.packed_attention import Run

# Weights are laid out for about this many tokens; any number works.
_EXPECTED_TOKENS = 32


class BertNetwork:
    """Implements `Network`; its weights are copies."""

    def __init__(self, model: BertModel | RobertaModel | XLMRobertaModel) -> None:
        self._embeddings = model.embeddings
        self._first_position = first_position_of(model)
        self._layers = [_Layer(layer, model.config.num_attention_heads) for layer in model.encoder.layer]

    def outputs(self, batch: Batch) -> Iterator[Tensor]:
        """As `Network`: hidden states."""
        hidden: Tensor = self._embeddings(
            input_ids=batch.token_ids[None],
            position_ids=(batch.positions + self._first_position)[None],
            # A model without segments has one row for all.
            token_type_ids=batch.segments[None].clamp_max(self._embeddings.token_type_embeddings.num_embeddings - 1),
        )[0]
        for layer in self._layers:
            hidden = layer(hidden, batch.runs)
        for run in batch.runs:
            yield hidden[run.begin : run.end].view(run.num_texts, run.num_tokens, -1)


def bert_network(model: PreTrainedModel) -> BertNetwork | None:
    """The network of a model that is computed so; None for all others."""
    config = model.config
    is_usual = (
        type(model) in (BertModel, RobertaModel, XLMRobertaModel)
        and getattr(config, "hidden_act", None) == "gelu"
        and not getattr(config, "is_decoder", False)
        and model.device.type == "cpu"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch left it bare
    )
    if not is_usual:
        return None
    assert isinstance(model, BertModel | RobertaModel | XLMRobertaModel)
    return BertNetwork(model)


class _Layer:
    """One layer: attention and feed-forward network, each with its residual sum and norm."""

    def __init__(self, layer: nn.Module, num_heads: int) -> None:
        attention = layer.get_submodule("attention.self")
        projections = [_linear(attention, name) for name in ("query", "key", "value")]
        self._num_heads = num_heads
        self._qkv = _Product(
            torch.cat([one.weight for one in projections]), torch.cat([one.bias for one in projections])
        )
        attended, inner, outer = (
            _linear(layer, name) for name in ("attention.output.dense", "intermediate.dense", "output.dense")
        )
        self._attended = _Product(attended.weight, attended.bias)
        self._inner = _Product(inner.weight, inner.bias, activation="gelu")
        self._outer = _Product(outer.weight, outer.bias)
        self._norms = [layer.get_submodule(name) for name in ("attention.output.LayerNorm", "output.LayerNorm")]

    def __call__(self, hidden: Tensor, runs: list[Run]) -> Tensor:
        """[num_tokens, hidden_size] to the same."""
        hidden = self._norms[0](self._attended.plus(self._attend(self._qkv(hidden), runs), hidden))
        normed: Tensor = self._norms[1](self._outer.plus(self._inner(hidden), hidden))
        return normed

    def _attend(self, qkv: Tensor, runs: list[Run]) -> Tensor:
        """qkv: [num_tokens, 3 * hidden_size]; returns [num_tokens, hidden_size]."""
        size = qkv.shape[1] // 3
        seen = qkv.new_empty((qkv.shape[0], size))
        for run in runs:
            rows = qkv[run.begin : run.end]
            parts = rows.view(run.num_texts, run.num_tokens, 3, self._num_heads, -1).permute(2, 0, 3, 1, 4)
            found = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
            seen[run.begin : run.end] = found.transpose(1, 2).reshape(-1, size)
        return seen


class _Product:
    """A linear layer whose weights oneDNN has laid out, with an activation or a sum inside of it."""

    def __init__(self, weight: Tensor, bias: Tensor, activation: str = "none") -> None:
        reorder = torch.ops.mkldnn._reorder_linear_weight
        self._weight: Tensor = reorder(weight.detach().contiguous(), _EXPECTED_TOKENS)
        self._bias = bias.detach()
        self._activation: tuple[str, list[float], str] = (activation, [], "none" if activation == "gelu" else "")

    def __call__(self, rows: Tensor) -> Tensor:
        """The product, activated."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, *self._activation)
        return product

    def plus(self, rows: Tensor, other: Tensor) -> Tensor:
        """The product and `other`."""
        total: Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows, other, self._weight, self._bias, "add")
        return total


def _linear(module: nn.Module, name: str) -> nn.Linear:
    found = module.get_submodule(name)
    assert isinstance(found, nn.Linear)
    return found
