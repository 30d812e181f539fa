"""Values of the sampler: vocabulary, sampling plans, sampled tokens and results."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from workers.engine.runner import Ranked
from workers.model.sampling.counts import CountTables
from workers.model.sampling.sampling_rows import SamplingRequest

NO_TOKEN = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The token ids that a model may sample, and those of them that end a sequence."""

    size: int
    eos_token_ids: Collection[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledTokens:
    """Tokens on the device.

    token_ids:   [num_rows] int64, also where there is none to sample: some id of the vocabulary then
    packed:      all that the host must know, int64; a copy of it on the CPU will do for `Sampler.results`: the tokens,
                 NO_TOKEN where there is none, and `pack_ranked` of the rows that tell log probabilities
    ranked_rows: these rows, and of how many of the likeliest tokens each tells
    """

    token_ids: Tensor
    packed: Tensor
    ranked_rows: dict[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleResults:
    """What was sampled for a batch.

    token_ids: None where the row's logits hold NaN or +inf, or where no token is left to sample
    logprobs:  by row, where they were asked for and a token was sampled
    """

    token_ids: list[int | None]
    logprobs: dict[int, Ranked] = field(default_factory=dict)


class Prepared(Protocol):
    """All that a sample needs besides the logits, on the device.

    is_plain: whether the likeliest token of every row is all there is to tell
    """

    @property
    def is_plain(self) -> bool: ...
    def sample(self, logits: Tensor, pending: Tensor | None) -> SampledTokens: ...


class Planner(Protocol):
    """Plans the sampling of batches for one backend; keeps the token counts of penalised sequences."""

    tables: CountTables

    def plan(self, requests: Sequence[SamplingRequest]) -> Prepared:
        """The plan of a batch; needs no logits."""

    def rank(self, logits: Tensor, token_ids: Sequence[int], num_top: int) -> Tensor:
        """As `pack_ranked`, on the CPU."""
