"""Token rate of 1, 8 and 32 concurrent streams: through the whole platform, and of the same engine in this process.

`python -m bench.streams [--rounds 3]`: a 40M-parameter random model, 64 prompt tokens, 128 output tokens, greedy.
The two take turns in one run; only their ratio travels to another machine.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.models import make_model
from bench.platform import running, stream_completion
from storage.contract import SamplingParams
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceRequest
from workers.model import load as model
from workers.model.resources.memory_options import LoadLimits

CONCURRENCY = (1, 8, 32)
NUM_PROMPT, NUM_OUTPUT = 64, 128
MODEL = "bench"


def prompt_of(index: int) -> list[int]:
    """A prompt that no other stream shares."""
    return [300 + (index * 97 + position * 31) % 9000 for position in range(NUM_PROMPT)]


def open_engine(folder: Path) -> Engine:
    """The engine as a worker would load it, in this thread."""
    loaded = model.load(str(folder), limits=LoadLimits(max_running=max(CONCURRENCY)))
    return Engine(loaded.runner, loaded.text, loaded.limits)


def in_process(engine: Engine, num_streams: int) -> float:
    """Tokens a second of the engine alone."""
    sampling = SamplingParams(max_tokens=NUM_OUTPUT, temperature=0.0)
    started, num_tokens = time.perf_counter(), 0
    for index in range(num_streams):
        engine.add(SequenceRequest(sequence_id=str(index), prompt=tuple(prompt_of(index)), sampling=sampling))
    while engine.has_work:
        num_tokens += sum(len(output.token_ids) for output in engine.step())
    return num_tokens / (time.perf_counter() - started)


async def through_platform(port: int, num_streams: int) -> float:
    """Tokens a second of as many streams over HTTP."""
    started = time.perf_counter()
    streams = [
        stream_completion(port, model=MODEL, prompt=prompt_of(index), max_tokens=NUM_OUTPUT)
        for index in range(num_streams)
    ]
    times = await asyncio.gather(*streams)
    return sum(stream.num_tokens for stream in times) / (time.perf_counter() - started)


def measure(folder: Path, home: Path, rounds: int) -> dict[int, list[tuple[float, float]]]:
    """(in process, through the platform) of each round, tokens a second, by number of streams."""
    engine = open_engine(folder)
    rates: dict[int, list[tuple[float, float]]] = {num_streams: [] for num_streams in CONCURRENCY}
    with running(home, "--model", f"{MODEL}={folder}") as port:
        for round_no in range(rounds + 1):
            for num_streams in CONCURRENCY:
                pair = in_process(engine, num_streams), asyncio.run(through_platform(port, num_streams))
                # The first round warms both up.
                if round_no:
                    rates[num_streams].append(pair)
    return rates


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="tokenpost-bench-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        rates = measure(make_model(home / "model"), home, rounds)
    table = Table(title=f"tokens/s, best of {rounds}; 40M parameters, float32, {NUM_PROMPT} in, {NUM_OUTPUT} out")
    for heading in ("streams", "in process", "platform", "ratio of the best"):
        table.add_column(heading, justify="right")
    for num_streams, pairs in rates.items():
        alone, whole = max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)
        table.add_row(str(num_streams), f"{alone:.0f}", f"{whole:.0f}", f"{whole / alone:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
