"""The model's layers compiled into one graph, which serves steps of every size."""

from collections.abc import Callable

import structlog
import torch
from torch import Tensor
from transformers import PreTrainedModel

from workers.model.gpu.attention import TableAttention
from workers.model.torch import block_attention
from workers.model.validation import check_agreement

log = structlog.get_logger()


class CompiledLayers:
    """Replaces the layers' forward, from token ids to the last hidden states, until it is dropped.

    The output layer is not compiled: it is one matrix product of the wanted rows only.
    """

    def __init__(self, model: PreTrainedModel, backend: str | Callable[..., object]) -> None:
        self._layers = model.base_model
        self._dtype = model.dtype
        # A break in the graph, or a graph for each size, would be no gain: better none at all.
        self._compiled = torch.compile(self._layers.forward, fullgraph=True, dynamic=True, backend=backend)
        self._stance = "default"
        self._layers.forward = self._forward

    def compile(self, steps: Callable[[], Tensor], expected: Tensor) -> bool:
        """Compile for these steps and compute them; whether the logits are as expected. If not, it is dropped.

        steps:    computes steps of several sizes, and gives logits of interest, [num_rows, vocab_size]
        expected: what the unchanged model says
        """
        return self._agrees("default", steps, expected)

    def serves(self, steps: Callable[[], Tensor], expected: Tensor) -> bool:
        """Whether the compiled layers compute these steps as well, as expected. If not, they are dropped.

        Nothing is compiled any more from then on, as that takes a minute and longer: a step that needs another graph
        after all is computed one operation after another.
        """
        is_served = self._agrees("fail_on_recompile", steps, expected)
        self._stance = "eager_on_recompile"
        return is_served

    def _agrees(self, stance: str, steps: Callable[[], Tensor], expected: Tensor) -> bool:
        self._stance = stance
        try:
            check_agreement(expected, steps(), self._dtype)
        except Exception as error:
            log.warning("compiled_layers_unavailable", error=str(error).strip().partition("\n")[0])
            log.debug("compiled_layers_failed", exc_info=True)
            self.drop()
            return False
        return True

    def drop(self) -> None:
        """Let the layers compute one operation after another again."""
        del self._layers.forward

    def _forward(self, *arguments: object, **named: object) -> object:
        if self._stance == "default":
            self._mark((*arguments, *named.values()))
        with torch.compiler.set_stance(self._stance):
            return self._compiled(*arguments, **named)

    def _mark(self, inputs: tuple[object, ...]) -> None:
        """Mark the numbers of tokens and of cache blocks as dynamic for the compiler.

        Otherwise it would make a graph for one token and others for more, or hold two sizes for one that happen to be
        equal now.
        """
        for one in inputs:
            if isinstance(one, Tensor) and one.dim() == 2:
                torch._dynamo.decorators.mark_unbacked(one, 1)
        for layer in block_attention.attached(self._layers):
            assert isinstance(layer, TableAttention)
            for tensor in layer.sized_tensors():
                torch._dynamo.decorators.mark_unbacked(tensor, 0)


def compile_layers(
    model: PreTrainedModel,
    steps: Callable[[], Tensor],
    expected: Tensor,
    backend: str | Callable[..., object] = "inductor",
) -> CompiledLayers | None:
    """The layers, replaced by compiled ones; None if they do not compile, or give other logits.

    steps, expected: as in CompiledLayers.compile
    """
    compiled = CompiledLayers(model, backend)
    return compiled if compiled.compile(steps, expected) and compiled.serves(steps, expected) else None
