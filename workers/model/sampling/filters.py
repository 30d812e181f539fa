"""Filters top_k, top_p and min_p: which tokens stay candidates, on a GPU without a sort and a synchronisation.

Every filter keeps the first tokens of one order: the likeliest first, of equals the lower id. Sums are of whole
numbers, which give the same in any order: a row's filter cannot depend on the batch around it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from storage.contract import SamplingParams
from workers.model.sampling.sampling_rows import usable_temperature
from workers.model.sampling.upload import upload

# Weights are counted in these parts of the likeliest token's. The sum over 2**22 tokens fits 64 bits.
_PARTS = 2.0**40
_FARTHEST = (1 << 31) - 1
# Tokens that a CPU looks at before it searches them all.
_NUM_NEAREST = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Filters of some rows; None where none of them has that filter.

    top_k: [num_rows, 1] int64, at least 1
    top_p: [num_rows, 1] float64; above 1 keeps everything
    least: [num_rows, 1] float32, of min_p: how far below the best logit the last candidate may lie
    """

    top_k: Tensor | None
    top_p: Tensor | None
    least: Tensor | None

    @classmethod
    def of(cls, params: Sequence[SamplingParams], vocab_size: int, device: torch.device) -> "Filters":
        """The filters that requests ask for."""
        top_k = [[one.top_k or vocab_size] for one in params]
        top_p = [[one.top_p if one.top_p < 1.0 else 2.0] for one in params]
        least = [[least_distance(one.min_p, usable_temperature(one))] for one in params]
        return cls(
            top_k=upload(top_k, torch.int64, device) if any(one.top_k for one in params) else None,
            top_p=upload(top_p, torch.float64, device) if any(one.top_p < 1.0 for one in params) else None,
            least=upload(least, torch.float32, device) if any(one.min_p for one in params) else None,
        )

    def kept(self, distances: Tensor, weights: Tensor) -> Tensor:
        """Which tokens stay candidates; the likeliest always does.

        distances: [num_rows, vocab_size] logits less their row's best
        weights:   [num_rows, vocab_size] probabilities as shares of the likeliest token's
        returns:   [num_rows, vocab_size] bool

        As in transformers, top_p counts within what top_k left, and min_p is a share of the likeliest.
        """
        far = distances.abs().view(torch.int32)  # the bits of numbers that are not negative are in their order
        kept = weights > 0.0 if self.least is None else distances >= self.least
        parts = (weights.double() * _PARTS).long() if self.top_p is not None else far
        if self.top_k is not None:
            is_near = _nearest(far, torch.ones_like(far), self.top_k)
            kept &= is_near
            parts = parts * is_near
        if self.top_p is not None:
            limits = (self.top_p * parts.sum(-1, keepdim=True).double()).ceil().long().clamp_(min=1)
            kept &= _nearest(far, parts, limits)
        return kept


def least_distance(min_p: float, temperature: float) -> float:
    """How far below the best a logit may lie, so that its weight is at least `min_p`; not above 0."""
    return temperature * math.log(min_p) if min_p > 0.0 else -math.inf


def _nearest(far: Tensor, weights: Tensor, limits: Tensor) -> Tensor:
    """Which tokens have less than their row's limit of weight before them.

    far:     [num_rows, vocab_size] int32, not negative: lower comes earlier, of equals the lower id
    weights: [num_rows, vocab_size] whole numbers, not negative
    limits:  [num_rows, 1] int64, at least 1
    """
    if far.device.type == "cpu":
        edges = _edges_among_few(far, weights, limits)
        if edges is None:
            edges = _edges_by_sorting(far, weights, limits)
    else:
        edges = _edges(far, weights, limits)
    is_within = far < edges
    before = (weights * is_within).sum(-1, keepdim=True)
    on_edge = weights * (far == edges)
    return is_within | ((far == edges) & (before + on_edge.cumsum(-1) - on_edge < limits))


def _edges(far: Tensor, weights: Tensor, limits: Tensor) -> Tensor:
    """The least distance of each row within which its limit is reached, [num_rows, 1], found bit by bit."""
    edges = torch.full_like(limits, _FARTHEST, dtype=torch.int32)
    for bit in range(30, -1, -1):
        nearer = edges - (1 << bit)
        is_enough = (weights * (far <= nearer)).sum(-1, keepdim=True) >= limits
        edges = torch.where(is_enough, nearer, edges)
    return edges


def _edges_by_sorting(far: Tensor, weights: Tensor, limits: Tensor) -> Tensor:
    """The same on a CPU, where numpy sorts a row in a quarter of the time."""
    order = torch.from_numpy(far.numpy().argsort(-1))
    is_reached = weights.gather(1, order).cumsum(-1) >= limits
    places = (~is_reached).sum(-1, keepdim=True).clamp_(max=far.shape[1] - 1)
    return torch.where(is_reached[:, -1:], far.gather(1, order.gather(1, places)), _FARTHEST)


def _edges_among_few(far: Tensor, weights: Tensor, limits: Tensor) -> Tensor | None:
    """The same where every row's limit is reached among its nearest tokens, which is seldom otherwise; else None.

    Many times as fast, but it asks the device.
    """
    nearest, ids = far.topk(min(_NUM_NEAREST, far.shape[1]), -1, largest=False)
    is_reached = weights.gather(1, ids).cumsum(-1) >= limits
    if not bool(is_reached[:, -1].all()):
        return None
    return nearest.gather(1, is_reached.long().argmax(-1, keepdim=True))
