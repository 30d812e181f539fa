"""The next token of each row of logits, drawn so that it can be drawn again."""

import torch
from torch import Tensor

from storage.contract import SamplingParams
from workers.engine.runner import Chunk
from workers.engine.sampling_seed import position_key

# Below this the likeliest token wins but for ties, and a division by it would lose all digits.
MIN_TEMPERATURE = 0.01
# Filters look at this many likeliest tokens first; a row that needs more makes them look at all.
NUM_CANDIDATES = 512


def draw(logits: Tensor, chunks: list[Chunk]) -> list[int | None]:
    """The next token of each chunk; None where the logits hold NaN or +inf, or nothing but -inf.

    logits: [num_sampled, vocab_size]; chunks: [num_sampled]

    A token is a pure function of its row, its sampling parameters and its position: whatever else is in the batch,
    the same noise meets the same token id.
    """
    logits = logits.float()
    best, tokens = logits.max(dim=-1)
    noisy = [place for place, chunk in enumerate(chunks) if chunk.sampling.temperature >= MIN_TEMPERATURE]
    for places in _by_filter(noisy, chunks):
        index = torch.tensor(places, device=logits.device)
        # Taken from the best before the division, so that no temperature can overflow.
        distances = logits[index] - best[index, None]
        tokens[index] = _draw_noisy(distances, [chunks[place] for place in places])
    is_finite = torch.isfinite(best).tolist()
    return [token if is_sound else None for token, is_sound in zip(tokens.tolist(), is_finite, strict=True)]


def exponential_noise(keys: Tensor, token_ids: Tensor) -> Tensor:
    """Draws from Exp(1), a pure function of (key, token id) alike on every device: 32-bit integer arithmetic.

    keys:      [num_seqs, 2] int32 of `sampling_seed.position_key`
    token_ids: [num_seqs or 1, num_tokens]
    returns:   [num_seqs, num_tokens], above 0

    Source: the finalizer of MurmurHash3, with a key added before each multiplication.
    """
    bits = token_ids.to(torch.int32) * -1640531535 + keys[:, :1]
    bits = (bits ^ (bits >> 16 & 0xFFFF)) * -2048144789 + keys[:, 1:]
    bits = (bits ^ (bits >> 13 & 0x7FFFF)) * -1028477387
    bits = bits ^ (bits >> 16 & 0xFFFF)
    # 23 bits and a half fit a float32 exactly; with 24 the uppermost would round to 1, whose logarithm is 0.
    return ((bits >> 9 & 0x7FFFFF).float() + 0.5).mul_(2.0**-23).log_().neg_()


def _by_filter(places: list[int], chunks: list[Chunk]) -> list[list[int]]:
    """Places of rows without and with a filter, those that there are."""
    free = [place for place in places if not _is_filtered(chunks[place].sampling)]
    filtered = [place for place in places if _is_filtered(chunks[place].sampling)]
    return [group for group in (free, filtered) if group]


def _is_filtered(params: SamplingParams) -> bool:
    return params.top_k > 0 or params.top_p < 1.0


def _draw_noisy(distances: Tensor, chunks: list[Chunk]) -> Tensor:
    """Token ids for rows that are either all filtered or all not: argmax p / E.

    distances: [num_seqs, vocab_size], logits less their row's best

    Source: the exponential race; for E ~ Exp(1) it is the Gumbel-max trick without its logarithms.
    """
    device = distances.device
    params = [chunk.sampling for chunk in chunks]
    keys = [position_key(chunk.sampling.seed, len(chunk.tokens)) for chunk in chunks]
    key = torch.tensor(keys, dtype=torch.int32, device=device)
    scaled = distances / _column([one.temperature for one in params], distances)
    if not _is_filtered(params[0]):
        token_ids = torch.arange(scaled.shape[1], device=device).unsqueeze(0)
        return (scaled.exp_() / exponential_noise(key, token_ids)).argmax(-1)
    probs, token_ids = _filter(scaled, params)
    place = (probs / exponential_noise(key, token_ids)).argmax(-1, keepdim=True)
    return token_ids.gather(1, place).squeeze(1)


def _filter(scaled: Tensor, params: list[SamplingParams]) -> tuple[Tensor, Tensor]:
    """Probabilities of the likeliest tokens, 0 for those that top_k or top_p leave out, and their ids.

    scaled:  [num_seqs, vocab_size]
    returns: [num_seqs, num_candidates] twice; the likeliest first, and never left out
    """
    vocab_size = scaled.shape[1]
    top_k = _column([one.top_k or vocab_size for one in params], scaled).clamp_(max=vocab_size)
    top_p = _column([one.top_p if one.top_p < 1.0 else 2.0 for one in params], scaled)
    total = scaled.logsumexp(-1, keepdim=True)
    num_candidates = min(NUM_CANDIDATES, vocab_size)
    top, token_ids = scaled.topk(num_candidates, -1)
    probs = (top - total).exp_()
    is_enough = torch.where(top_k < vocab_size, top_k <= num_candidates, probs.sum(-1, keepdim=True) >= top_p)
    if num_candidates < vocab_size and not bool(is_enough.all()):
        top, token_ids = scaled.sort(dim=-1, descending=True)
        probs = (top - total).exp_()
    ranks = torch.arange(probs.shape[1], device=probs.device)
    probs = probs * (ranks < top_k)
    # As in transformers, top_p counts within what top_k left.
    probs /= torch.where(top_k < vocab_size, probs.sum(-1, keepdim=True), 1.0)
    mass_before = probs.cumsum(-1) - probs
    is_out = mass_before >= top_p
    is_out[:, 0] = False
    return probs.masked_fill_(is_out, 0.0), token_ids


def _column(values: list[float] | list[int], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device).unsqueeze(1)
