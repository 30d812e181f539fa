"""Settings of the worker processes, read once from TOKENPOST_* at their entry points."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from storage import ids
from storage.settings import PlatformSettings

AGING_AFTER_S = 60.0
_OLD_NAMES = {"aging_after_s": "starve_after_s"}


class WorkerSettings(PlatformSettings):
    """Settings of one generation worker.

    model:            Hugging Face id, local folder, GGUF file, or `ORG/REPO:FILE.gguf` of Hugging Face
    served_name:      model id in the API; empty means the source's own id, or the name of the folder or file
    device:           `auto`, `cpu` or `cuda`
    dtype:            `auto`, `float32` or `bfloat16`; `auto` is float32 on a CPU and bfloat16 on CUDA
    worker_id:        unique for each process; generated when not set
    max_running:      largest number of running sequences
    lookahead:        tickets prefetched beyond that, so that a freed slot is filled at once
    max_len:          tokens of one sequence, prompt and output; the model's context where that is less
    max_batch_tokens: tokens computed in one step; encoders take 1024, on a GPU 16384
    kv_budget_mb:     memory of the KV cache in MiB; unset lets the engine choose
    prefix_cache:     whether a job may reuse cached blocks of earlier jobs of the same owner
    num_threads:      compute threads; unset means one for each core
    native:           whether native kernels are compiled where a compiler exists; otherwise torch computes
    kernel_folder:    folder of compiled kernels
    instruction_set:  what the kernels are compiled for: `native` is all that the processor has, the others leave some
                      of it unused
    model_folder:     folder of converted GGUF files, in `converted`, and of pulled ones, in `files`
    progress_file:    file for the number of tensors converted or loaded, and of all; `tokenpost up` sets and shows it
    compiled:         whether a GPU worker lets torch compile the model at start
    aging_after_s:    aging: how long a sequence may wait in the engine before it goes ahead of more urgent ones
    watchdog_s:       how long an engine with work may make no progress before its process is ended
    drain_grace_s:    how long running jobs may finish after SIGTERM before they are requeued
    """

    old_names = _OLD_NAMES

    model: str
    served_name: str = ""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    worker_id: str = Field(default_factory=lambda: ids.new_id("wrk_"), min_length=1)
    max_running: int = Field(default=64, ge=1, le=4096)
    lookahead: int = Field(default=4, ge=1, le=1024)
    max_len: int = Field(default=4096, ge=2)
    max_batch_tokens: int = Field(default=512, ge=1)
    kv_budget_mb: int | None = Field(default=None, ge=1)
    prefix_cache: bool = True
    num_threads: int | None = Field(default=None, ge=1)
    native: bool = True
    kernel_folder: Path = Path("~/.cache/tokenpost")
    instruction_set: Literal["native", "amx", "avx512-bf16", "avx512", "avx2", "neon-bf16", "neon", "plain"] = "native"
    model_folder: Path = Path("~/.tokenpost/models")
    progress_file: Path | None = None
    compiled: bool = True
    aging_after_s: float = Field(default=AGING_AFTER_S, gt=0)
    watchdog_s: float = Field(default=60.0, gt=0)
    drain_grace_s: float = Field(default=20.0, ge=0)

    @property
    def name(self) -> str:
        """The model id in the API; a folder or file without a given name uses its own name."""
        path = Path(self.model)
        return self.served_name or (path.name.removesuffix(".gguf") if path.exists() else self.model)

    @property
    def concurrency(self) -> int:
        """How many tickets the worker holds at once."""
        return self.max_running + self.lookahead


class SweeperSettings(PlatformSettings):
    """Settings of the CPU worker's sweeper.

    sweep_interval_s: seconds between two sweeps
    settling_s:       seconds after which the sweeper completes the log of an ended job
    unserved_after_s: how long a queued job waits for a model without a worker before it fails
    ticket_slack_s:   how much older than the oldest waiting ticket a queued row must be to count as lost
    aging_after_s:    aging: how long a job may wait in the back queue before it moves to the front queue
    """

    old_names = _OLD_NAMES

    worker_id: str = Field(default_factory=lambda: ids.new_id("cpu_"), min_length=1)
    sweep_interval_s: float = Field(default=1.0, gt=0)
    settling_s: float = Field(default=5.0, ge=0)
    unserved_after_s: float = Field(default=86400.0, ge=0)
    ticket_slack_s: float = Field(default=3.0, ge=0)
    aging_after_s: float = Field(default=AGING_AFTER_S, gt=0)
