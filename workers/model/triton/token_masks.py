"""Applies packed token masks of grammars to rows of logits."""

import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096


@triton.jit(do_not_specialize_on_alignment=["rows", "masks"])
def _apply(
    logits: tl.tensor,
    rows: tl.tensor,
    masks: tl.tensor,
    logits_stride: tl.tensor,
    num_words: tl.tensor,
    vocab_size: tl.tensor,
    block: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * block + tl.arange(0, block)
    is_token = token < vocab_size
    words = tl.load(masks + place * num_words + token // 32, mask=is_token, other=0)
    is_allowed = (words >> (token % 32)) & 1
    row = tl.load(rows + place)
    tl.store(logits + row * logits_stride + token, float("-inf"), mask=is_token & (is_allowed == 0))


def apply_masks(logits: Tensor, rows: Tensor, masks: Tensor) -> None:
    """As `ApplyMasks` of workers/model/sampling/torch_sampling.py: one launch, and only what is not allowed is written.

    logits: [num_rows, vocab_size] float32, the last dimension dense
    rows:   [num_masked] int64
    masks:  [num_masked, num_words] int32, contiguous
    """
    vocab_size = logits.shape[1]
    assert logits.stride(1) == 1
    assert masks.is_contiguous()
    _apply[(len(rows), triton.cdiv(vocab_size, _BLOCK))](
        logits, rows, masks, logits.stride(0), masks.shape[1], vocab_size, block=_BLOCK
    )
