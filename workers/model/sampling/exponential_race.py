"""Exponential-race (Gumbel-max) sampling on torch: the token with the highest weight / noise is sampled."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.engine.sampling_seed import position_key
from workers.model.sampling.filters import Filters
from workers.model.sampling.noise import exponential_noise
from workers.model.sampling.sampling_rows import SamplingRequest, is_filtered, num_known, usable_temperature
from workers.model.sampling.upload import upload

# Numbers that a CPU handles at once: about what its nearest caches hold with the temporaries.
_CPU_BLOCK = 1 << 16
# And a GPU: some hundred rows of a large vocabulary, whose temporaries take less than a GiB.
_GPU_BLOCK = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class GumbelMaxBatch:
    """Rows whose tokens are sampled in one go.

    rows:         [num_rows] places in the batch
    keys:         [num_rows, 2] int32 of `position_key`
    temperatures: [num_rows, 1] float32
    filters:      None where no row has any
    """

    rows: Tensor
    keys: Tensor
    temperatures: Tensor
    filters: Filters | None

    def run(self, logits: Tensor, best: Tensor, tokens: Tensor) -> None:
        """Put the token of each row among those of the batch; it is of no use where the logits are not finite.

        logits: [num_sampled, vocab_size] float32, of the whole batch; best: [num_sampled], each row's highest
        tokens: [num_sampled] int64

        A token is argmax p / E, where E ~ Exp(1) is a function of seed, position and token id alone. So whatever
        else is in the batch, the same request samples the same token.

        Source: the exponential race, which is the Gumbel-max trick without its logarithms.
        """
        # Taken from the best before the division, so that no temperature can overflow.
        distances = logits[self.rows] - best[self.rows, None]
        weights = (distances / self.temperatures).exp_()
        scores = weights / exponential_noise(self.keys, torch.arange(logits.shape[1], device=logits.device)[None])
        if self.filters is not None:
            scores *= self.filters.kept(distances, weights)
        tokens[self.rows] = likeliest(scores)[1]


def likeliest(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The highest number of each row, NaN where the row holds one, and the first place where it stands.

    rows: [num_rows, num_columns] float32
    """
    if rows.device.type != "cpu":
        best, places = rows.max(dim=-1)
        return best, places
    # numpy's argmax is six times as fast as torch's.
    places = torch.from_numpy(rows.numpy().argmax(-1))
    return rows.gather(1, places[:, None]).squeeze(1), places


def plan_batches(
    requests: Sequence[SamplingRequest], rows: Sequence[int], vocab_size: int, device: torch.device
) -> list[GumbelMaxBatch]:
    """Batches for exponential-race sampling: rows without filters apart, and few enough for caches or memory."""
    size = max(1, (_CPU_BLOCK if device.type == "cpu" else _GPU_BLOCK) // vocab_size)
    batches = []
    for with_filters in (False, True):
        places = [row for row in rows if is_filtered(requests[row].sampling) is with_filters]
        for begin in range(0, len(places), size):
            some = places[begin : begin + size]
            batches.append(_plan([requests[row] for row in some], some, vocab_size, device))
    return batches


def _plan(requests: list[SamplingRequest], rows: list[int], vocab_size: int, device: torch.device) -> GumbelMaxBatch:
    params = [request.sampling for request in requests]
    keys = [position_key(request.sampling.seed, num_known(request)) for request in requests]
    temperatures = [[usable_temperature(one)] for one in params]
    return GumbelMaxBatch(
        rows=upload(rows, torch.int64, device),
        keys=upload(keys, torch.int32, device),
        temperatures=upload(temperatures, torch.float32, device),
        filters=Filters.of(params, vocab_size, device) if is_filtered(params[0]) else None,
    )
