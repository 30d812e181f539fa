"""The next token of each row of logits, drawn so that it can be drawn again."""

from collections.abc import Iterator

import torch
from torch import Tensor

from storage.contract import SamplingParams
from workers.engine.runner import Chunk
from workers.engine.sampling_seed import position_key
from workers.model.noise import exponential_noise

# Below this the likeliest token wins but for ties, and a division by it would lose all digits.
MIN_TEMPERATURE = 0.01
# Filters look at this many likeliest tokens first; most rows need no more.
NUM_CANDIDATES = 64
# Numbers that a CPU handles at once: about what its nearest caches hold with the temporaries.
_CPU_BLOCK = 1 << 16


def draw(logits: Tensor, chunks: list[Chunk]) -> list[int | None]:
    """The next token of each chunk; None where the logits hold NaN or +inf, or nothing but -inf.

    logits: [num_sampled, vocab_size]; chunks: [num_sampled]

    A token is argmax p / E, where E ~ Exp(1) is a function of seed, position and token id alone. So whatever else is
    in the batch, the same request draws the same token.

    Source: the exponential race, which is the Gumbel-max trick without its logarithms.
    """
    logits = logits.float()
    best, tokens = logits.max(dim=-1)
    for places in _blocks(chunks, logits):
        index = torch.tensor(places, device=logits.device)
        # Taken from the best before the division, so that no temperature can overflow.
        distances = logits[index] - best[index, None]
        tokens[index] = _draw_noisy(distances, [chunks[place] for place in places])
    is_finite = torch.isfinite(best).tolist()
    return [token if is_sound else None for token, is_sound in zip(tokens.tolist(), is_finite, strict=True)]


def _blocks(chunks: list[Chunk], logits: Tensor) -> Iterator[list[int]]:
    """Places of rows to draw in one go: with a filter or without, and few enough for the caches."""
    size = len(chunks) if logits.is_cuda else max(1, _CPU_BLOCK // logits.shape[1])
    for is_filtered in (False, True):
        places = [
            place
            for place, chunk in enumerate(chunks)
            if chunk.sampling.temperature >= MIN_TEMPERATURE and _is_filtered(chunk.sampling) is is_filtered
        ]
        for begin in range(0, len(places), size):
            yield places[begin : begin + size]


def _is_filtered(params: SamplingParams) -> bool:
    return params.top_k > 0 or params.top_p < 1.0


def _draw_noisy(distances: Tensor, chunks: list[Chunk]) -> Tensor:
    """Token ids of rows that are either all filtered or all not, [num_seqs].

    distances: [num_seqs, vocab_size], logits less their row's best
    """
    params = [chunk.sampling for chunk in chunks]
    keys = torch.tensor(
        [position_key(chunk.sampling.seed, len(chunk.tokens)) for chunk in chunks],
        dtype=torch.int32,
        device=distances.device,
    )
    scaled = distances / _column([one.temperature for one in params], distances)
    if not _is_filtered(params[0]):
        return (scaled.exp_() / exponential_noise(keys, _all_ids(scaled))).argmax(-1)
    probs, token_ids, is_enough = _filter(scaled, params)
    place = (probs / exponential_noise(keys, token_ids)).argmax(-1, keepdim=True)
    tokens = token_ids.gather(1, place).squeeze(1)
    for row, enough in enumerate(is_enough.tolist()):
        if not enough:
            tokens[row] = _draw_among_all(scaled[row], keys[row : row + 1], params[row])
    return tokens


def _filter(scaled: Tensor, params: list[SamplingParams]) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities of the likeliest tokens, 0 for those that top_k or top_p leave out; their ids; and for each row
    whether these tokens are enough to tell.

    scaled:  [num_seqs, vocab_size]
    returns: [num_seqs, num_candidates] twice, the likeliest first and never left out; [num_seqs]
    """
    vocab_size = scaled.shape[1]
    top_k = _column([one.top_k or vocab_size for one in params], scaled).clamp_(max=vocab_size)
    top_p = _column([one.top_p for one in params], scaled)
    top, token_ids = scaled.topk(min(NUM_CANDIDATES, vocab_size), -1)
    probs = (top - scaled.logsumexp(-1, keepdim=True)).exp_()
    num_candidates = probs.shape[1]
    is_enough = (top_k <= num_candidates) | ((top_k == vocab_size) & (probs.sum(-1, keepdim=True) >= top_p))
    probs = probs * (torch.arange(num_candidates, device=probs.device) < top_k)
    # As in transformers, top_p counts within what top_k left.
    probs /= torch.where(top_k < vocab_size, probs.sum(-1, keepdim=True), 1.0)
    is_out = (probs.cumsum(-1) - probs >= top_p) & (top_p < 1.0)
    is_out[:, 0] = False
    return probs.masked_fill_(is_out, 0.0), token_ids, is_enough.squeeze(1)


def _draw_among_all(scaled: Tensor, key: Tensor, params: SamplingParams) -> int:
    """The token of one row whose filters reach beyond the candidates, without sorting the vocabulary.

    The winner of the race over all tokens is asked whether the likelier ones leave room for it within top_p; if not,
    neither it nor any less likely token is in, and the race is held among the rest.

    scaled: [vocab_size]; key: [1, 2]
    """
    probs = scaled.softmax(-1)
    if params.top_k:
        kept = probs.topk(min(params.top_k, len(probs))).values
        probs = torch.where(probs >= kept[-1], probs, 0.0) / kept.sum()
    race = probs / exponential_noise(key, _all_ids(scaled.unsqueeze(0)))[0]
    while True:
        winner = int(race.argmax())
        is_likelier = probs > probs[winner]
        if params.top_p >= 1.0 or not bool((probs * is_likelier).sum() >= params.top_p):
            return winner
        race *= is_likelier


def _all_ids(rows: Tensor) -> Tensor:
    return torch.arange(rows.shape[1], device=rows.device).unsqueeze(0)


def _column(values: list[float] | list[int], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device).unsqueeze(1)
