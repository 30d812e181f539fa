"""What bounds a sequence and a step; planned once, when the model is loaded."""

from dataclasses import dataclass, field

from storage.errors import SettingInvalid
from workers.engine.memory import blocks_of


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """The engine's measures.

    max_running:         sequences that run together
    max_len:             tokens of one sequence, prompt and output
    num_blocks:          blocks of the cache; at least one sequence of max_len fits
    block_size:          positions in a block, a power of two
    max_batch_tokens:    tokens computed in one step, over all sequences; at least max_running
    max_prefill_tokens: of these, prefill tokens (of prompts, or of sequences that are recomputed) in a step in which
                         others sample their next token; it bounds how long a prompt may keep a stream waiting. More
                         where several prompts wait
    aging_after_s:      aging: time that a sequence may wait, over all its waits, before it goes before all others
    vocab_size:          prompt ids must be below it
    eos_token_ids:       ids that end a sequence
    """

    max_running: int
    max_len: int
    num_blocks: int
    block_size: int
    max_batch_tokens: int
    vocab_size: int
    eos_token_ids: frozenset[int] = field(default=frozenset())
    max_prefill_tokens: int = 128
    aging_after_s: float = 60.0

    def __post_init__(self) -> None:
        if self.max_running < 1 or self.max_len < 2:
            raise SettingInvalid(f"The engine needs 1 sequence of 2 tokens, not {self.max_running} of {self.max_len}")
        if self.max_batch_tokens < self.max_running or self.max_prefill_tokens < 1:
            raise SettingInvalid(
                f"max_batch_tokens ({self.max_batch_tokens}) must be at least the number of running sequences "
                f"({self.max_running}) and max_prefill_tokens ({self.max_prefill_tokens}) at least 1, "
                "or some would never run"
            )
        if self.block_size < 1 or self.block_size & (self.block_size - 1):
            raise SettingInvalid(f"A block's size is a power of two, not {self.block_size}")
        if self.num_blocks < blocks_of(self.max_len, self.block_size):
            raise SettingInvalid(
                f"{self.num_blocks} blocks of {self.block_size} do not hold one sequence of {self.max_len} tokens"
            )
