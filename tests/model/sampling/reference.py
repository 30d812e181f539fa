"""What a token's probability should be, the slow and obvious way: plain Python, one row, one step after another."""

import math
from collections import Counter
from collections.abc import Sequence

from storage.contract import SamplingParams
from workers.model.sampling.sampling_rows import SamplingRequest

INFINITY = float("inf")


def edited(logits: Sequence[float], request: SamplingRequest, eos_token_ids: Sequence[int] = (0,)) -> list[float]:
    """Logits after mask, bias and penalties."""
    params, values = request.sampling, list(logits)
    output = Counter(request.tokens[request.num_prompt :])
    if output.total() < params.min_tokens:
        for token_id in (*(() if params.ignore_eos else eos_token_ids), *params.stop_token_ids):
            values[token_id] = -INFINITY
    for token_id, bias in params.logit_bias:
        values[token_id] += bias
    for token_id in set(request.tokens):
        penalty = params.repetition_penalty
        values[token_id] = values[token_id] / penalty if values[token_id] > 0 else values[token_id] * penalty
    for token_id, count in output.items():
        values[token_id] -= params.presence_penalty + params.frequency_penalty * count
    return values


def probabilities(logits: Sequence[float], request: SamplingRequest) -> list[float]:
    """The distribution of the next token."""
    params, values = request.sampling, edited(logits, request)
    order = sorted(range(len(values)), key=lambda token_id: (-values[token_id], token_id))
    if params.temperature < 0.01:
        return [float(token_id == order[0]) for token_id in range(len(values))]
    weights = [math.exp((value - max(values)) / params.temperature) for value in values]
    order = _nucleus(weights, order[: params.top_k or None], params)
    order = [token_id for token_id in order if weights[token_id] >= params.min_p * max(weights)]
    total = sum(weights[token_id] for token_id in order)
    return [weights[token_id] / total if token_id in order else 0.0 for token_id in range(len(values))]


def _nucleus(weights: list[float], order: list[int], params: SamplingParams) -> list[int]:
    """The fewest of the likeliest tokens that hold top_p of the weight of all in `order`."""
    total = sum(weights[token_id] for token_id in order)
    kept: list[int] = []
    for token_id in order:
        if params.top_p < 1.0 and sum(weights[one] for one in kept) / total >= params.top_p:
            break
        kept.append(token_id)
    return kept


def assert_distributed(counts: Counter[int], probs: Sequence[float]) -> None:
    """Pearson's chi-square, at a bound that a right sampler passes with all but 1e-6 of all sets of seeds."""
    num_samples = counts.total()
    assert all(counts[token_id] == 0 for token_id, prob in enumerate(probs) if prob == 0.0)
    seen = [(counts[token_id], prob * num_samples) for token_id, prob in enumerate(probs) if prob > 0.0]
    assert sum(count for count, _ in seen) == num_samples
    statistic = sum((count - mean) ** 2 / mean for count, mean in seen)
    freedom = len(seen) - 1
    # Wilson and Hilferty's approximation of the chi-square quantile.
    bound = freedom * (1 - 2 / (9 * freedom) + 4.75 * math.sqrt(2 / (9 * freedom))) ** 3 if freedom else 1e-9
    assert statistic <= bound
