"""What bounds a sequence and a step; planned once, when the model is loaded."""

from dataclasses import dataclass, field

from storage.errors import SettingInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """The engine's measures.

    num_rows:         sequences that run together
    max_len:          tokens of one sequence, prompt and output
    max_batch_tokens: tokens computed in one step, over all sequences; at least num_rows
    vocab_size:       prompt ids must be below it
    eos_token_ids:    ids that end a sequence
    """

    num_rows: int
    max_len: int
    max_batch_tokens: int
    vocab_size: int
    eos_token_ids: frozenset[int] = field(default=frozenset())

    def __post_init__(self) -> None:
        if self.num_rows < 1 or self.max_len < 2:
            raise SettingInvalid(f"The engine needs 1 row of 2 tokens, not {self.num_rows} of {self.max_len}")
        if self.max_batch_tokens < self.num_rows:
            raise SettingInvalid(
                f"max_batch_tokens ({self.max_batch_tokens}) must be at least the number of rows ({self.num_rows}), "
                "or running sequences would starve"
            )
