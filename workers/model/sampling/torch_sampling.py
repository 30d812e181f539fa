"""Sampling on torch: planned on the host, computed on the device."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.constraint.mask_buffer import MaskBuffer
from workers.model.sampling.exponential_race import GumbelMaxBatch, likeliest, plan_batches
from workers.model.sampling.logit_edits import EditPlanner, Edits
from workers.model.sampling.sampled import NO_TOKEN, SampledTokens, Vocabulary
from workers.model.sampling.sampling_rows import SamplingRequest, is_noisy, ranked_rows_of
from workers.model.sampling.token_logprobs import pack_ranked
from workers.model.sampling.upload import send, upload

# Writes minus infinity over logits whose bit is 0: logits [num_rows, vocab_size] float32, the places of the masked rows
# [num_masked] int64, their packed masks [num_masked, num_words] int32.
ApplyMasks = Callable[[Tensor, Tensor, Tensor], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchSamplingPlan:
    """All that sampling needs besides the logits, on the device.

    edits:       None where no logit is changed
    masks:       places of the rows with a mask [num_masked], and their masks [num_masked, num_words]; None without any
    batches:     rows that are not greedy
    ranked:      rows that tell log probabilities, [num_ranked]; None without any
    ranked_rows: the same rows, and how many of the likeliest each tells
    """

    edits: Edits | None
    masks: tuple[Tensor, Tensor] | None
    apply_masks: ApplyMasks
    batches: Sequence[GumbelMaxBatch]
    ranked: Tensor | None
    ranked_rows: dict[int, int]

    @property
    def is_plain(self) -> bool:
        """Whether the likeliest token of every row is all there is to tell."""
        return self.edits is None and self.masks is None and not self.batches and not self.ranked_rows

    def sample(self, logits: Tensor, pending: Tensor | None) -> SampledTokens:
        """Sample on the device; on CUDA nothing here waits for it.

        logits:  [num_rows, vocab_size] float32, of no use afterwards: edits are made in place
        pending: [num_rows] int64, the token that the launch before sampled, read where a request is pending
        """
        best, tokens = likeliest(logits)
        is_sound = best.isfinite()
        undo, unmasked = None, None
        if self.edits is not None:
            undo = self.edits.apply(logits, pending)
        if self.masks is not None:
            unmasked = logits[self.masks[0]] if self.ranked is not None else None
            self.apply_masks(logits, *self.masks)
        if self.edits is not None or self.masks is not None:
            best, tokens = likeliest(logits)
            is_sound &= best > -torch.inf
        for batch in self.batches:
            batch.run(logits, best, tokens)
        packed = torch.where(is_sound, tokens, NO_TOKEN)
        if self.ranked is not None:
            if self.masks is not None and unmasked is not None:
                logits[self.masks[0]] = unmasked
            if undo is not None:
                undo()
            num_top = max(self.ranked_rows.values())
            ranked = pack_ranked(logits[self.ranked], tokens[self.ranked], num_top)
            packed = torch.cat([packed, ranked.flatten()])
        return SampledTokens(token_ids=tokens, packed=packed, ranked_rows=self.ranked_rows)


class TorchPlanner:
    """Plans sampling for torch; keeps the tables of penalised sequences."""

    def __init__(self, vocabulary: Vocabulary, device: torch.device, apply_masks: ApplyMasks | None = None) -> None:
        """apply_masks: the device's own kernel; torch's operations without one"""
        self._vocab_size = vocabulary.size
        self._device = device
        self._masks = MaskBuffer(vocabulary.size)
        self._apply_masks = apply_masks or apply_masks_by_torch
        self._edits = EditPlanner(vocabulary, device)
        self.tables = self._edits.tables

    def plan(self, requests: Sequence[SamplingRequest]) -> TorchSamplingPlan:
        """The sampling plan of a batch."""
        noisy = [row for row, request in enumerate(requests) if is_noisy(request.sampling)]
        ranked_rows = ranked_rows_of(requests)
        return TorchSamplingPlan(
            edits=self._edits.plan(requests),
            masks=self._plan_masks(requests),
            apply_masks=self._apply_masks,
            batches=plan_batches(requests, noisy, self._vocab_size, self._device),
            ranked=upload(list(ranked_rows), torch.int64, self._device) if ranked_rows else None,
            ranked_rows=ranked_rows,
        )

    def _plan_masks(self, requests: Sequence[SamplingRequest]) -> tuple[Tensor, Tensor] | None:
        masks = {row: request.mask for row, request in enumerate(requests) if request.mask is not None}
        if not masks:
            return None
        self._masks.fill(list(masks.values()))
        words = torch.frombuffer(self._masks.words(len(masks)), dtype=torch.int32).view(len(masks), -1)
        # A copy: the buffer is written again for the next step, while the device may still read this one.
        return upload(list(masks), torch.int64, self._device), send(words.clone(), self._device)

    def rank(self, logits: Tensor, token_ids: Sequence[int], num_top: int) -> Tensor:
        """As `pack_ranked`, on the CPU."""
        return pack_ranked(logits, upload(token_ids, torch.int64, self._device), num_top).cpu()


def apply_masks_by_torch(logits: Tensor, rows: Tensor, masks: Tensor) -> None:
    """As `ApplyMasks`, by operations that every device has."""
    bits = torch.tensor([1 << bit for bit in range(8)], dtype=torch.uint8, device=logits.device)
    allowed = (masks.view(torch.uint8)[:, :, None] & bits).bool().flatten(1)[:, : logits.shape[1]]
    logits[rows] = torch.where(allowed, logits[rows], -torch.inf)
