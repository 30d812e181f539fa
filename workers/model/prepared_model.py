"""A model that is ready to run, however its weights were read."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from workers.engine.memory import CachePlan
from workers.engine.runner import Chunk, Runner
from workers.model.native.runner import NativeRunner
from workers.model.native.weight_map import WeightMap

_MIB = 1 << 20


class ModelRunner(Runner, Protocol):
    """A runner whose logits can be read."""

    def logits(self, chunks: list[Chunk]) -> Tensor:
        """Logits after each chunk, all of which are sampled, [num_chunks, vocab_size]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatedMap:
    """A weight map whose network computes what transformers computes.

    expected: logits of the unchanged model, `validation.expected_logits`
    """

    weight_map: WeightMap
    expected: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A runner and what was made for it.

    native: what the native library computes; None where torch computes
    how:    what computes, for people
    """

    runner: ModelRunner
    plan: CachePlan
    native: ValidatedMap | None
    how: str


def prepared_natively(runner: NativeRunner, plan: CachePlan, native: ValidatedMap) -> Prepared:
    """A model on the native library."""
    weights, working = (size / _MIB for size in runner.memory())
    how = f"native {runner.instruction_set} kernels: weights {weights:.0f} MiB, working memory {working:.0f} MiB"
    return Prepared(runner=runner, plan=plan, native=native, how=how)
