"""Log probabilities of tokens and of the likeliest ones, as the model gave them."""

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from workers.engine.runner import Ranked

# What OpenAI's API says for a token that cannot come: JSON has no infinity.
NEVER = -9999.0
_BLOCK = 1 << 20
_ID_BITS = (1 << 32) - 1


def pack_ranked(logits: Tensor, token_ids: Tensor, num_top: int) -> Tensor:
    """Ids and log probabilities of each row's token and its likeliest ones, for `unpack_ranked`.

    logits:    [num_rows, vocab_size], untouched; token_ids: [num_rows] int64
    returns:   [num_rows, 2 * num_columns] int64: ids, then the bits of log probabilities; first the token's own, then
               those of the `num_top` likeliest
    """
    size = max(1, _BLOCK // logits.shape[1])
    blocks = zip(torch.split(logits, size), torch.split(token_ids, size), strict=True)
    return torch.cat([_packed(rows.float(), ids[:, None], num_top) for rows, ids in blocks])


def _packed(logits: Tensor, token_ids: Tensor, num_top: int) -> Tensor:
    best = logits.amax(-1, keepdim=True)
    # Summed in float64 and rounded, so that no other way of summing shows.
    total = (logits - best).exp_().sum(-1, keepdim=True, dtype=torch.float64).log_().float()
    top, top_ids = _likeliest(logits, num_top)
    ids = torch.cat([token_ids, top_ids], dim=-1)
    logprobs = torch.cat([logits.gather(1, token_ids), top], dim=-1) - best - total
    logprobs = logprobs.nan_to_num_(nan=NEVER, posinf=NEVER, neginf=NEVER).clamp_(min=NEVER)
    return torch.cat([ids, logprobs.double().view(torch.int64)], dim=-1)


def _likeliest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest logits of each row and their ids, the likeliest first, of equals the lower id."""
    # Which of several equal ones `topk` takes is its own affair.
    count = min(count, logits.shape[1])
    if logits.device.type == "cpu" and count > 0:
        top, ids = logits.topk(count, -1)
        # Row by row: one that holds NaN has fewer, and would hide that another has more.
        if bool(((logits >= top[:, -1:]).sum(-1) == count).all()):
            ids = ids.sort(-1).values
            top, order = logits.gather(1, ids).sort(dim=-1, descending=True, stable=True)
            return top, ids.gather(1, order)
    # So number and id become one whole number: a float32's bits are in its order, but for the sign and a second zero.
    bits = (logits + 0.0).view(torch.int32)
    ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long() << 32
    ids = torch.arange(logits.shape[1], device=logits.device)
    keys = ordered.add_(_ID_BITS - ids).topk(count, -1).values
    top_ids = _ID_BITS - (keys & _ID_BITS)
    return logits.gather(1, top_ids), top_ids


def unpack_ranked(packed: Tensor, num_tops: Sequence[int]) -> list[Ranked]:
    """The rows of `pack_ranked` as values.

    packed: on the CPU; num_tops: how many of the likeliest each row asked for, at most as many as were packed
    """
    ids, bits = packed.chunk(2, dim=-1)
    logprobs = bits.contiguous().view(torch.float64).tolist()
    return [
        Ranked(token_id=row_ids[0], logprob=row[0], top=tuple(islice(zip(row_ids, row, strict=True), 1, 1 + num_top)))
        for row_ids, row, num_top in zip(ids.tolist(), logprobs, num_tops, strict=True)
    ]
