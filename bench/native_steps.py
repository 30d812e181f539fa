"""Steps of the native kernels, one instruction set beside the other: `python -m bench.native_steps`.

python -m bench.native_steps [--model FOLDER] [--dtype float32] [--sets avx512 avx2] [--library NAME=FILE] [--rounds 10]

Milliseconds of CPU time of one thread, so that other processes count little: of a step in which 1, 8, 32 and 64
sequences decode behind 130 tokens each, and of a prompt of 512 tokens. Sampling (greedy) is included, the engine is
not. Rounds go from one library to the next; the best of each counts. By default every instruction set that this
processor has. `--library` takes further compiled files, of other sources.
"""

import argparse
import tempfile
import time
from array import array
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, PreTrainedModel

from bench.models import make_model
from storage.contract import SamplingParams
from workers.engine.runner import Chunk
from workers.model.architecture.probe import attention_layers
from workers.model.native.build import Build
from workers.model.native.decoder import BLOCK_SIZE, Decoder
from workers.model.native.instruction_sets import INSTRUCTION_SETS, find_obstacle
from workers.model.native.library import Library, Limits
from workers.model.native.mapping import map_of
from workers.model.native.runner import NativeRunner
from workers.model.native.sampling import native_sampler
from workers.model.native.weights import Weights
from workers.model.resources.memory_options import InstructionSet
from workers.model.sampling.sampled import Vocabulary

NUM_STREAMS = (1, 8, 32, 64)
NUM_CONTEXT, NUM_PREFILL = 130, 512
GREEDY = SamplingParams(max_tokens=1, temperature=0.0)


def libraries(names: list[InstructionSet], files: list[str]) -> dict[str, Library]:
    """One for each instruction set and each `name=file`."""
    found = {}
    for name in names:
        path = Build(Path("~/.cache/tokenpost").expanduser(), name).wait()
        assert path is not None, f"the kernels for {name} do not compile"
        found[name] = Library(path)
    return found | {name: Library(Path(file)) for name, _, file in (one.partition("=") for one in files)}


def runner_of(library: Library, model: PreTrainedModel) -> NativeRunner:
    """The model on the library, with room for every case."""
    max_len = NUM_PREFILL + BLOCK_SIZE
    weight_map = map_of(model, attention_layers(model))
    assert weight_map is not None, "the kernels do not know this architecture"
    weights = Weights(weight_map, dict(model.named_parameters()).__getitem__, model.dtype, max_len)
    limits = Limits(
        num_threads=1,
        num_spins=5000,
        max_batch_tokens=NUM_PREFILL,
        num_blocks=max(NUM_STREAMS) * blocks_for(NUM_CONTEXT + 1),
        max_logit_rows=max(NUM_STREAMS),
    )
    decoder = Decoder(library, weights, limits)
    vocabulary = Vocabulary(size=model.config.vocab_size, eos_token_ids=[])
    return NativeRunner(decoder, native_sampler(vocabulary, library, decoder))


def blocks_for(num_tokens: int) -> int:
    """How many cache blocks they take."""
    return -(-num_tokens // BLOCK_SIZE)


def chunks_of(num_sequences: int, start: int, end: int) -> list[Chunk]:
    """The tokens start .. end - 1 of so many sequences, each in blocks of its own."""
    num_blocks = blocks_for(end)
    return [
        Chunk(
            sequence_id=str(number),
            blocks=array("i", range(number * num_blocks, (number + 1) * num_blocks)),
            tokens=[(number * 131 + place * 17) % 16000 for place in range(end)],
            start=start,
            end=end,
            num_prompt=end,
            logits_from=end - 1,
            sampling=GREEDY,
        )
        for number in range(num_sequences)
    ]


def step_ms(runner: NativeRunner, chunks: list[Chunk]) -> float:
    """Milliseconds of CPU time of a step."""
    began = time.thread_time()
    runner.launch(chunks)
    return (time.thread_time() - began) * 1e3


def measure(runners: dict[str, NativeRunner], rounds: int) -> dict[str, list[float]]:
    """For each library the milliseconds of every case, the prompt last."""
    cases = [chunks_of(num, NUM_CONTEXT, NUM_CONTEXT + 1) for num in NUM_STREAMS]
    cases.append(chunks_of(1, 0, NUM_PREFILL))
    best = {name: [float("inf")] * len(cases) for name in runners}
    for case, chunks in enumerate(cases):
        for _ in range(rounds):
            for name, runner in runners.items():
                best[name][case] = min(best[name][case], step_ms(runner, chunks))
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path(tempfile.gettempdir()) / "tokenpost-bench-40m")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], action="append")
    runnable = [name for name in INSTRUCTION_SETS if name not in ("native", "plain") and find_obstacle(name) is None]
    parser.add_argument("--sets", nargs="*", default=runnable, choices=INSTRUCTION_SETS)
    parser.add_argument("--library", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    found = libraries(options.sets, options.library)
    for dtype in options.dtype or ("float32", "bfloat16"):
        model = AutoModelForCausalLM.from_pretrained(make_model(options.model), dtype=getattr(torch, dtype))
        runners = {name: runner_of(library, model) for name, library in found.items()}
        table = Table(title=f"{options.model.name}, {dtype}: milliseconds of a step")
        for column in ("", *map(str, NUM_STREAMS), "512-token prompt"):
            table.add_column(column, justify="right")
        for name, times in measure(runners, options.rounds).items():
            table.add_row(name, *(f"{one:.2f}" for one in times))
        Console(width=120).print(table)


if __name__ == "__main__":
    main()
