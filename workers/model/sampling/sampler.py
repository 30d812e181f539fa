"""The sampler: the next token of each row of logits, planned on the host, sampled on the device, and read back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from workers.engine.runner import Ranked
from workers.model.sampling.sampled import NO_TOKEN, Planner, Prepared, SampledTokens, SampleResults, Vocabulary
from workers.model.sampling.sampling_rows import SamplingRequest
from workers.model.sampling.token_logprobs import unpack_ranked
from workers.model.sampling.torch_sampling import ApplyMasks, TorchPlanner


class Sampler:
    """Samples the tokens of one model.

    It keeps tables of token counts of sequences with penalties, and nothing that sampling depends on: every token is
    a function of its own row's logits and request.
    """

    def __init__(self, planner: Planner) -> None:
        self._planner = planner

    def prepare(self, requests: Sequence[SamplingRequest]) -> Prepared:
        """Plan the sampling of a batch. Needs no logits: it may run while the device still computes them."""
        return self._planner.plan(requests)

    @torch.inference_mode()
    def sample_prepared(self, logits: Tensor, prepared: Prepared, pending: Tensor | None = None) -> SampledTokens:
        """Sample on the device; on CUDA nothing here waits for it.

        logits:  [num_rows, vocab_size], of no use afterwards: edits are made in place
        pending: [num_rows] int64, the token that the launch before sampled, read where a request is pending
        """
        return prepared.sample(logits.float(), pending)

    def results(self, tokens: SampledTokens) -> SampleResults:
        """What was sampled, on the host: waits for the device, and copies once."""
        num_rows = len(tokens.token_ids)
        packed = tokens.packed.cpu()
        token_ids = [None if token_id == NO_TOKEN else token_id for token_id in packed[:num_rows].tolist()]
        if not tokens.ranked_rows:
            return SampleResults(token_ids=token_ids)
        table = packed[num_rows:].view(len(tokens.ranked_rows), -1)
        ranked = unpack_ranked(table, list(tokens.ranked_rows.values()))
        logprobs = {row: one for row, one in zip(tokens.ranked_rows, ranked, strict=True) if token_ids[row] is not None}
        return SampleResults(token_ids=token_ids, logprobs=logprobs)

    @torch.inference_mode()
    def rank(self, logits: Tensor, token_ids: Sequence[int], num_top: int) -> list[Ranked]:
        """How likely each token was, and the likeliest at its place; for prompts.

        logits: [num_positions, vocab_size], after the position before each token; token_ids: [num_positions]
        """
        if not token_ids:
            return []
        return unpack_ranked(self._planner.rank(logits, token_ids, num_top), [num_top] * len(token_ids))

    def sample(self, logits: Tensor, requests: Sequence[SamplingRequest]) -> SampleResults:
        """Prepare, sample and read back in one call."""
        return self.results(self.sample_prepared(logits, self.prepare(requests)))

    def forget(self, sequence_id: str) -> None:
        """Drop what is kept of a sequence that has ended; it would go by itself after a while."""
        self._planner.tables.forget(sequence_id)


def torch_sampler(vocabulary: Vocabulary, device: torch.device, apply_masks: ApplyMasks | None = None) -> Sampler:
    """A sampler that computes with torch on this device.

    apply_masks: the device's own kernel for masks; torch's operations without one
    """
    return Sampler(TorchPlanner(vocabulary, device, apply_masks))
