"""Cost of sampling one step's tokens: `python -m bench.sampler`.

For each way to sample, the best of some runs in milliseconds, preparation included: in the native library on one
thread, and on torch alone with `--threads`. Logits are normal numbers, wide as a model's or nearly flat.
A sequence has 200 prompt tokens and 800 of output, nearly all of them different.
"""

import argparse
import tempfile
import time
from array import array
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from storage.contract import SamplingParams
from workers.engine.runner import Chunk
from workers.model.native.build import Build
from workers.model.native.library import Library
from workers.model.native.sampling import native_sampler
from workers.model.sampling.sampled import Vocabulary
from workers.model.sampling.sampler import torch_sampler

CPU = torch.device("cpu")
NUM_RUNS = 15
NUM_PROMPT, NUM_TOKENS = 200, 1000
KINDS: dict[str, dict[str, object]] = {
    "greedy": {"temperature": 0.0},
    "temperature 1": {},
    "top_p 0.9": {"top_p": 0.9},
    "top_k 50": {"top_k": 50},
    "min_p 0.05": {"min_p": 0.05},
    "greedy, presence and frequency": {"temperature": 0.0, "presence_penalty": 0.5, "frequency_penalty": 0.5},
    "greedy, repetition": {"temperature": 0.0, "repetition_penalty": 1.1},
    "greedy, 5 logprobs": {"temperature": 0.0, "logprobs": 5},
}


def best_ms(run: Callable[[], object]) -> float:
    """Milliseconds of the quickest run."""
    times = []
    for _ in range(NUM_RUNS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times) * 1e3


def chunks_of(num_rows: int, vocab_size: int, sampling: dict[str, object]) -> list[Chunk]:
    """Sequences in the middle of their output, each with its own tokens."""
    chunks = []
    for row in range(num_rows):
        tokens = torch.randint(0, vocab_size, (NUM_TOKENS,), generator=torch.Generator().manual_seed(row)).tolist()
        params = SamplingParams(max_tokens=NUM_TOKENS, seed=row, **sampling)  # type: ignore[arg-type]  # as in KINDS
        chunks.append(
            Chunk(
                sequence_id=str(row),
                blocks=array("i"),
                tokens=tokens,
                start=NUM_TOKENS - 1,
                end=NUM_TOKENS,
                num_prompt=NUM_PROMPT,
                sampling=params,
                logits_from=NUM_TOKENS - 1,
            )
        )
    return chunks


def add_row(table: Table, name: str, logits: torch.Tensor, library: Library | None) -> None:
    """Measure one way to sample."""
    num_rows, vocab_size = logits.shape
    cells = []
    for one in (library, None):
        vocabulary = Vocabulary(size=vocab_size, eos_token_ids=[0])
        sampler = torch_sampler(vocabulary, CPU) if one is None else native_sampler(vocabulary, one)
        chunks = chunks_of(num_rows, vocab_size, KINDS[name])
        sampler.sample(logits, chunks)
        cells.append(best_ms(partial(sampler.sample, logits, chunks)))
    table.add_row(name, *(f"{cell:.3f}" for cell in cells))


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[16384, 151936])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 32, 64])
    parser.add_argument("--width", type=float, default=4.0, help="standard deviation of the logits; 0.5 is nearly flat")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Build(Path(folder)).wait()
        library = None if path is None else Library(path)
    for vocab_size in options.vocabularies:
        for num_rows in options.rows:
            table = Table("way to sample", "library, ms", "torch, ms", title=f"{num_rows} rows of {vocab_size}")
            for name in KINDS:
                add_row(table, name, torch.randn(num_rows, vocab_size) * options.width, library)
            Console().print(table)


if __name__ == "__main__":
    main()
