"""Pooling: the hidden states of a text's tokens as one vector."""

import math
from typing import assert_never

import torch
from torch import Tensor

from workers.model.architecture.sentence_folder import Pooling


def pooled(hidden: Tensor, pooling: Pooling) -> Tensor:
    """One vector for each text; texts are of equal length, so that nothing is padding.

    hidden:  [num_texts, num_tokens, size]
    returns: [num_texts, size] in float32

    Source: sentence_transformers 6.2.0, `Pooling.forward`.
    """
    hidden = hidden.float()
    num_tokens = hidden.shape[1]
    match pooling:
        case Pooling.CLS:
            return hidden[:, 0]
        case Pooling.LAST:
            return hidden[:, -1]
        case Pooling.MEAN:
            return hidden.mean(dim=1)
        case Pooling.MEAN_SQRT:
            return hidden.sum(dim=1) / math.sqrt(num_tokens)
        case Pooling.MAX:
            return hidden.amax(dim=1)
        case Pooling.WEIGHTED_MEAN:
            weights: Tensor = torch.arange(1, num_tokens + 1, device=hidden.device, dtype=torch.float32)
            weighted: Tensor = (hidden * weights.view(1, -1, 1)).sum(dim=1) / weights.sum()
            return weighted
        case _:
            assert_never(pooling)
