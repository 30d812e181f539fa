"""Reproducible noise: exponential numbers hashed from a key and a token id."""

import torch
from torch import Tensor


def exponential_noise(keys: Tensor, token_ids: Tensor) -> Tensor:
    """Samples from Exp(1), a pure function of (key, token id) alike on every device: 32-bit integer arithmetic.

    keys:      [num_seqs, 2] int32 of `sampling_seed.position_key`
    token_ids: [num_seqs or 1, num_tokens]
    returns:   [num_seqs, num_tokens] float32, above 0

    Source: the finalizer of MurmurHash3, with a key added before each multiplication. It works in place, because on
    a CPU most of the time goes into memory.
    """
    bits = token_ids.to(torch.int32) * -1640531535 + keys[:, :1]
    shifted = torch.empty_like(bits)
    _fold(bits, shifted, 16, 0xFFFF)
    bits *= -2048144789
    bits += keys[:, 1:]
    _fold(bits, shifted, 13, 0x7FFFF)
    bits *= -1028477387
    _fold(bits, shifted, 16, 0xFFFF)
    bits >>= 9
    bits &= 0x7FFFFF
    # 23 bits and a half fit a float32 exactly; with 24 the uppermost would round to 1, whose logarithm is 0.
    return bits.float().add_(0.5).mul_(2.0**-23).log_().neg_()


def _fold(bits: Tensor, shifted: Tensor, distance: int, mask: int) -> None:
    """bits ^= bits >> distance, without the sign bits that an arithmetic shift inserts."""
    torch.bitwise_right_shift(bits, distance, out=shifted)
    shifted &= mask
    bits ^= shifted
