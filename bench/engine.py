"""The engine in process beside transformers: one by one, static `generate`, `generate_batch`, in one run, in turn.

python -m bench.engine [--model FOLDER] [--dtype float32|bfloat16] [--threads N] [--rounds 3] [--streams 1 8 32 64]

All get the same prompts and generate the same number of tokens, greedily, prompts included; the best round of each
counts. Lengths are equal (128 out) or ragged (16 to 240 out). Below it, the engine alone: a warm prefix, a long prompt
beside running streams, and the share of a step that is not the model.
"""

import argparse
import logging
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch
import transformers
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, PreTrainedModel

from bench import engine_alone, engine_peers
from bench.engine_alone import Job
from bench.models import make_model
from workers.model.load import LoadedModel, load
from workers.model.resources.memory_options import LoadLimits

NUM_PROMPT_TOKENS = 64
NUM_OUTPUT_TOKENS = 128
RAGGED = (16, 240)
# Targets of design/engine.md, by (other, streams, whether ragged): the engine's rate over the other's.
TARGETS = {
    ("one by one", 1, False): 1.0,
    ("generate_batch", 32, False): 2.8,
    ("generate_batch", 64, False): 3.0,
    ("static", 32, False): 1.3,
    ("static", 32, True): 1.7,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Output tokens a second of each way, at one number of streams."""

    num_streams: int
    is_ragged: bool
    rates: dict[str, float]


def make_jobs(num_streams: int, *, is_ragged: bool) -> list[Job]:
    """The same jobs at every call."""
    numbers = random.Random(num_streams)
    return [
        Job(
            prompt=tuple(numbers.randrange(300, 16000) for _ in range(NUM_PROMPT_TOKENS)),
            max_tokens=numbers.randint(*RAGGED) if is_ragged else NUM_OUTPUT_TOKENS,
        )
        for _ in range(num_streams)
    ]


def measure_row(loaded: LoadedModel, hf: PreTrainedModel, num_streams: int, rounds: int, *, is_ragged: bool) -> Row:
    """Rounds that alternate between all ways; the best of each."""
    jobs = make_jobs(num_streams, is_ragged=is_ragged)
    ways: dict[str, Callable[[], float]] = {
        "engine": lambda: engine_alone.rate(loaded, jobs),
        "one by one": lambda: engine_peers.rate_one_by_one(hf, jobs[:4]),
        "static": lambda: engine_peers.rate_static(hf, jobs),
        "generate_batch": lambda: engine_peers.rate_batch(hf, jobs),
    }
    rates = dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for name, way in ways.items():
            rates[name] = max(rates[name], way())
    return Row(num_streams=num_streams, is_ragged=is_ragged, rates=rates)


def table_of(rows: list[Row], dtype: str) -> Table:
    """Rates, and how many times each other the engine is, with the target where there is one."""
    table = Table(title=f"{dtype}: output tokens/s (engine over it / target)")
    table.add_column("streams")
    for name in rows[0].rates:
        table.add_column(name, justify="right")
    for row in rows:
        cells = [_cell(row, name, rate) for name, rate in row.rates.items()]
        table.add_row(f"{row.num_streams}{' ragged' if row.is_ragged else ''}", *cells)
    return table


def _cell(row: Row, name: str, rate: float) -> str:
    if name == "engine":
        return f"{rate:.0f}"
    target = TARGETS.get((name, row.num_streams, row.is_ragged))
    return f"{rate:.0f} ({row.rates['engine'] / rate:.2f}{f' / {target}' if target else ''})"


def tell_alone(console: Console, loaded: LoadedModel) -> None:
    """What concerns the engine only."""
    cold, warm = engine_alone.prefix_times(loaded)
    console.print(f"512-token prefix: first token after {cold * 1e3:.1f} ms cold, {warm * 1e3:.1f} ms warm: "
                  f"{cold / warm:.1f}x (target 3x)")  # fmt: skip
    alone, beside = engine_alone.gaps_beside_long_prompt(loaded)
    console.print(f"16 streams, p99 between tokens: {alone * 1e3:.1f} ms, with a prompt of 3,900 tokens coming in "
                  f"{beside * 1e3:.1f} ms: {beside / alone:.2f}x (target: at most 3x)")  # fmt: skip
    for num_streams in (1, 32, 64):
        share = engine_alone.share_outside_runner(loaded, make_jobs(num_streams, is_ragged=False))
        console.print(f"{num_streams} streams: {share:.1%} of a step outside the runner (target at 32: under 5 %)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path(tempfile.gettempdir()) / "tokenpost-bench-40m")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], action="append")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32, 64])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    structlog.configure(processors=[_drop])
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers left it bare
    logging.disable(logging.WARNING)
    console, folder, engine_rates = Console(width=120), make_model(arguments.model), {}
    for dtype in arguments.dtype or ["float32", "bfloat16"]:
        loaded = load(
            str(folder), device="cpu", dtype=dtype, limits=LoadLimits(max_running=max(64, *arguments.streams))
        )
        console.print(loaded.description)
        hf = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa")
        sizes = [(num_streams, is_ragged) for is_ragged in (False, True) for num_streams in arguments.streams]
        rows = [measure_row(loaded, hf, n, arguments.rounds, is_ragged=ragged) for n, ragged in sizes]
        console.print(table_of(rows, dtype))
        tell_alone(console, loaded)
        engine_rates[dtype] = [row.rates["engine"] for row in rows]
    if len(engine_rates) == 2:
        ratios = [wide / narrow for narrow, wide in zip(*engine_rates.values(), strict=True)]
        console.print("bfloat16 over float32, as the rows above:", *(f"{ratio:.2f}" for ratio in ratios))


def _drop(*_: object) -> str:
    """The bench prints its own lines."""
    raise structlog.DropEvent


if __name__ == "__main__":
    main()
