"""Load limits: what the operator of a worker may set about memory, steps and folders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

InstructionSet = Literal["native", "amx", "avx512-bf16", "avx512", "avx2", "neon-bf16", "neon", "plain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLimits:
    """Upper limits for the plan that is made at load.

    max_running:      sequences that run together
    max_len:          tokens of one sequence, prompt and output; the model's context where that is less
    max_batch_tokens: tokens computed in one step; raised to the number of sequences where it is less
    kv_budget_bytes:  memory of the KV cache; None takes what every sequence needs at a usual length on a CPU (at most a
                      quarter of main memory), half of what is free on a GPU
    num_threads:      threads that compute; None is one for each core
    kernel_folder:    where compiled kernels are kept; None leaves all to torch
    instruction_set:  what the kernels are compiled for; `native` is all that the processor has
    model_folder:     where converted GGUF files are kept, in `converted`
    is_compiled:      whether torch compiles the model on a GPU
    """

    max_running: int = 64
    max_len: int = 4096
    max_batch_tokens: int = 512
    kv_budget_bytes: int | None = None
    num_threads: int | None = None
    kernel_folder: Path | None = Path("~/.cache/tokenpost")
    instruction_set: InstructionSet = "native"
    model_folder: Path = Path("~/.tokenpost/models")
    is_compiled: bool = True
