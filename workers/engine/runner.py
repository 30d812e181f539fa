"""The runner protocol: what the engine asks of a model: tokens for a batch, over a KV cache of blocks."""

import collections.abc
from array import array
from typing import Protocol

import msgspec

from storage.contract import SamplingParams
from workers.constraint.row_masks import RowMask


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """The part of one sequence that a step computes: `tokens[start:end]`.

    blocks:      the sequence's block table, covering at least the positions before `end`; blocks[i] holds the
                 positions from i * block_size on; of type code i. Valid during `launch` only
    tokens:      all ids of the sequence so far. Valid during `launch` only
    start:       positions before it are in the cache, or are computed by this very step or an earlier launch
    num_prompt:  tokens[num_prompt:] are output
    logits_from: the first position whose logits are wanted; a token is sampled after it and after each following
                 position of the chunk. `end` where none is wanted
    is_pending:  whether tokens[start] is the token that the previous launch sampled for this sequence and that is not
                 known yet; start == len(tokens) then, and end == start + 1
    mask:        the tokens that may be sampled, None for all; of a chunk that samples one token. The runner calls it
                 during `launch`, on a GPU while the device computes
    """

    sequence_id: str
    blocks: "array[int]"
    tokens: collections.abc.Sequence[int]
    start: int
    end: int
    num_prompt: int
    sampling: SamplingParams
    logits_from: int
    is_pending: bool = False
    mask: RowMask | None = None

    @property
    def num_logits(self) -> int:
        """How many tokens are sampled: one for each position whose logits are wanted."""
        return self.end - self.logits_from


class Ranked(msgspec.Struct, frozen=True):
    """Raw log probabilities at one place: of the token there, and of the likeliest, the likeliest first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class StepOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What one launch yielded.

    token_ids:       for each chunk the tokens that were sampled, one for each position whose logits it wanted; None
                     where some of those logits are not finite, or no token is allowed
    logprobs:        by place in the launched chunks, where sampling.logprobs is not None: one for each of its token_ids
    prompt_logprobs: by place in the launched chunks, where sampling.prompt_logprobs is not None: the token at p + 1
                     for each computed position p with p + 1 < num_prompt
    """

    token_ids: list[tuple[int, ...] | None]
    logprobs: dict[int, tuple[Ranked, ...]] = {}
    prompt_logprobs: dict[int, list[Ranked]] = {}


class OutOfDeviceMemory(Exception):
    """A step needs more memory than the device has left; a smaller one may pass."""


class Runner(Protocol):
    """A model with a cache of blocks. It keeps nothing per sequence but, one step ahead, the token sampled last.

    Launches take effect in the order of their calls, and `clear` in its place between them.

    num_ahead: launches that may be under way beyond the one that is collected next: 0 or 1
    """

    num_ahead: int

    def launch(self, chunks: list[Chunk]) -> None:
        """Begin a step. Chunks of one token come first.

        All keys and values of a step are stored, layer by layer, before any are looked at: a chunk may read blocks
        that another chunk of the same step writes. The noise of the token after position p is fixed by
        (sampling.seed, p + 1).

        May raise, OutOfDeviceMemory where that is the cause: the engine then calls `reset`.
        """

    def collect(self) -> StepOutput:
        """The oldest launch's output. May raise as `launch` does."""

    def clear(self, blocks: list[int]) -> None:
        """Fill blocks with zeros; what they held may not have been finite. No launch under way uses them."""

    def reset(self) -> None:
        """Forget everything after a failed step, launches under way included, and zero all blocks.

        Raises when the runner can no longer be used.
        """
