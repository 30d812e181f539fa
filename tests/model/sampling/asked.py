"""Requests for the sampler, and a sampler that samples for one vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from storage.contract import SamplingParams
from workers.constraint.row_masks import RowMask
from workers.engine.runner import Ranked
from workers.model.native.library import Library
from workers.model.native.sampling import native_sampler
from workers.model.sampling.sampled import SampleResults, Vocabulary
from workers.model.sampling.sampler import Sampler, torch_sampler
from workers.model.sampling.sampling_rows import SamplingRequest

CPU = torch.device("cpu")
EOS = (0,)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as the engine's chunks are."""

    sampling: SamplingParams
    tokens: Sequence[int] = field(default_factory=lambda: [1, 2, 3])
    num_prompt: int = 3
    sequence_id: str = "s"
    is_pending: bool = False
    mask: RowMask | None = None


def asked(
    seed: int = 0, tokens: Sequence[int] = (1, 2, 3), num_prompt: int = 3, sequence_id: str = "s", **sampling: object
) -> Asked:
    """A request for the token after `tokens`."""
    params = SamplingParams(max_tokens=100, seed=seed, **sampling)  # type: ignore[arg-type]  # reported by the caller
    return Asked(sampling=params, tokens=list(tokens), num_prompt=num_prompt, sequence_id=sequence_id)


@dataclass(frozen=True)
class Backend:
    """Samples on a CPU: with the native library, or on torch alone, as on a GPU."""

    library: Library | None = None

    def sampler(self, vocab_size: int) -> Sampler:
        """A sampler whose only end-of-sequence id is 0."""
        vocabulary = Vocabulary(size=vocab_size, eos_token_ids=EOS)
        return torch_sampler(vocabulary, CPU) if self.library is None else native_sampler(vocabulary, self.library)

    def sample(
        self, rows: Sequence[Sequence[float]] | torch.Tensor, requests: Sequence[SamplingRequest]
    ) -> SampleResults:
        """The tokens that a new sampler samples from copies of the rows."""
        logits = rows.clone() if isinstance(rows, torch.Tensor) else torch.tensor(rows)
        return self.sampler(logits.shape[1]).sample(logits, requests)

    def rank(self, logits: torch.Tensor, token_ids: Sequence[int], num_top: int) -> list[Ranked]:
        """What a new sampler tells of the rows' tokens."""
        return self.sampler(logits.shape[1]).rank(logits, token_ids, num_top)
