"""Validation of a prepared model: it computes the logits that the unchanged model of transformers computes."""

from array import array

import torch
from torch import Tensor

from storage.contract import SamplingParams
from storage.errors import ModelUnsupported
from workers.engine.runner import Chunk
from workers.model.prepared_model import ModelRunner

# The validation runs this many tokens in three ways: a prompt, one token that decodes, and the rest behind them.
VALIDATION_ENDS = (5, 6, 12)
# Cosine of logits computed here and by transformers; rounding stays far above, another computation far below.
_MIN_AGREEMENT = {torch.float32: 0.9999, torch.bfloat16: 0.9}


def validation_ids(vocab_size: int) -> list[int]:
    """The token ids that are run."""
    return [index * 7919 % vocab_size for index in range(VALIDATION_ENDS[-1])]


def validation_logits(runner: ModelRunner, token_ids: list[int]) -> Tensor:
    """Logits of the prepared model after each part, [num_parts, vocab_size]."""
    logits = []
    start = 0
    for end in VALIDATION_ENDS:
        chunk = Chunk(
            sequence_id="validation",
            blocks=array("i", [0]),
            tokens=token_ids[:end],
            start=start,
            end=end,
            num_prompt=end,
            sampling=SamplingParams(max_tokens=1),
            logits_from=end - 1,
        )
        logits.append(runner.logits([chunk]))
        start = end
    runner.clear([0])
    return torch.cat(logits)


def check_agreement(expected: Tensor, found: Tensor, dtype: torch.dtype) -> None:
    """Raises ModelUnsupported when logits computed here are not those of the unchanged model.

    expected, found: [num_parts, vocab_size]
    """
    agreement = float(torch.cosine_similarity(expected.float(), found.float(), dim=-1).min())
    if not agreement >= _MIN_AGREEMENT[dtype]:
        raise ModelUnsupported(
            f"The model computes something else here than in transformers (agreement {agreement:.4f} of 1): its "
            "architecture is not supported"
        )
