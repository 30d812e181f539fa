"""The distributions that remain, against transformers' processors where it has the same one."""

import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tests.model.sampling.asked import CPU, asked
from workers.model.sampling.filters import Filters
from workers.model.sampling.logit_edits import EditPlanner
from workers.model.sampling.sampled import Vocabulary

VOCAB_SIZE = 500
TOKENS = [1, 2, 3, 3, 400]


def processors(sampling: dict[str, float]) -> LogitsProcessorList:
    """transformers' processors, in the order in which `generate` applies them."""
    chain = LogitsProcessorList()
    if "bias" in sampling:
        chain.append(SequenceBiasLogitsProcessor([[[7], sampling["bias"]], [[3], -sampling["bias"]]]))
    if "repetition_penalty" in sampling:
        chain.append(RepetitionPenaltyLogitsProcessor(sampling["repetition_penalty"]))
    if "temperature" in sampling:
        chain.append(TemperatureLogitsWarper(sampling["temperature"]))
    if "top_k" in sampling:
        chain.append(TopKLogitsWarper(int(sampling["top_k"])))
    if "top_p" in sampling:
        chain.append(TopPLogitsWarper(sampling["top_p"]))
    if "min_p" in sampling:
        chain.append(MinPLogitsWarper(sampling["min_p"]))
    return chain


def our_probabilities(logits: Tensor, sampling: dict[str, float]) -> Tensor:
    """The distribution that the exponential race samples from."""
    named = {name: value for name, value in sampling.items() if name != "bias"}
    bias = ((7, sampling["bias"]), (3, -sampling["bias"])) if "bias" in sampling else ()
    request = asked(tokens=TOKENS, logit_bias=bias, **named)
    values = logits.clone()
    edits = EditPlanner(Vocabulary(size=VOCAB_SIZE, eos_token_ids=()), CPU).plan([request])
    if edits is not None:
        edits.apply(values, None)
    distances = values - values.amax(-1, keepdim=True)
    weights = (distances / request.sampling.temperature).exp()
    weights *= Filters.of([request.sampling], VOCAB_SIZE, CPU).kept(distances, weights)
    return weights / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("slope", [0.5, 3.0, 9.0])
@pytest.mark.parametrize(
    "sampling",
    [
        {"top_k": 17},
        {"top_p": 0.7},
        {"min_p": 0.1},
        {"temperature": 0.6, "top_k": 60, "top_p": 0.9, "min_p": 0.02},
        {"repetition_penalty": 1.7},
        {"bias": 3.5, "repetition_penalty": 1.2, "temperature": 1.4, "top_p": 0.8},
    ],
    ids=str,
)
def test_what_is_sampled_from_is_what_transformers_samples_from(sampling: dict[str, float], slope: float) -> None:
    logits = torch.arange(float(VOCAB_SIZE)).mul(11).sin().mul(slope)[None]

    theirs = processors(sampling)(torch.tensor([TOKENS]), logits.clone()).softmax(-1)

    assert torch.allclose(our_probabilities(logits, sampling), theirs, atol=1e-6)
