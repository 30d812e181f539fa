"""What whoever starts a worker may decide about memory and steps."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLimits:
    """Wishes that the plan made at load keeps within.

    max_running:      sequences that run together
    max_len:          tokens of one sequence, prompt and output; the model's context where that is less
    max_batch_tokens: tokens computed in one step; raised to the number of rows where it is less
    kv_budget_bytes:  memory of the KV cache; None takes a quarter of what is free on a CPU, half of it on a GPU
    num_threads:      torch's threads in this process; None leaves torch's own choice
    """

    max_running: int = 64
    max_len: int = 4096
    max_batch_tokens: int = 512
    kv_budget_bytes: int | None = None
    num_threads: int | None = None
