"""Packed token masks of the rows of a step: one bit for each token of the vocabulary, 1 where it may be sampled."""

from collections.abc import Sequence
from typing import Protocol


class RowMask(Protocol):
    """The source of one row's mask."""

    def fill(self, words: memoryview, address: int) -> None:
        """Write the packed mask of the next token; all zero where there is none.

        words:   [num_words] uint32; bit i of word w is token 32 * w + i
        address: where they lie in memory
        """


class ForcedToken:
    """Allows one token."""

    __slots__ = ("_token_id",)

    def __init__(self, token_id: int) -> None:
        self._token_id = token_id

    def fill(self, words: memoryview, address: int) -> None:
        """As `RowMask.fill`."""
        clear(words)
        allow(words, [self._token_id])


def clear(words: memoryview) -> None:
    """Allow no token."""
    words[:] = memoryview(bytes(words.nbytes)).cast("I")


def allow(words: memoryview, token_ids: Sequence[int]) -> None:
    """Allow these as well; ids beyond the mask are passed over."""
    for token_id in token_ids:
        if 0 <= token_id < 32 * len(words):
            words[token_id >> 5] |= 1 << (token_id & 31)


def forbid(words: memoryview, token_ids: Sequence[int]) -> list[int]:
    """Allow these no longer; those that were allowed."""
    found = [one for one in token_ids if 0 <= one < 32 * len(words) and words[one >> 5] >> (one & 31) & 1]
    for token_id in found:
        words[token_id >> 5] &= ~(1 << (token_id & 31))
    return found


def is_clear(words: memoryview) -> bool:
    """Whether no token is allowed."""
    return words.tobytes() == bytes(words.nbytes)
