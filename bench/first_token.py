"""Time to the first token when idle, added by the platform to that of the engine in process.

`python -m bench.first_token [--requests 60]`: a 40M-parameter random model, 64 prompt tokens; the two take turns.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.models import make_model
from bench.platform import running, stream_completion
from bench.streams import MODEL, open_engine, prompt_of
from storage.contract import SamplingParams
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceRequest

NUM_WARM_UP = 10


def first_in_process(engine: Engine, index: int) -> float:
    """Milliseconds to the first token of the engine alone."""
    sampling = SamplingParams(max_tokens=1, temperature=0.0)
    started = time.perf_counter()
    engine.add(SequenceRequest(sequence_id=str(index), prompt=tuple(prompt_of(index)), sampling=sampling))
    while engine.has_work:
        engine.step()
    return 1000 * (time.perf_counter() - started)


def first_through_platform(port: int, index: int) -> float:
    """Milliseconds to the first chunk with text over HTTP."""
    stream = stream_completion(port, model=MODEL, prompt=prompt_of(index), max_tokens=4)
    return 1000 * asyncio.run(stream).first_s


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=60)
    num_requests = parser.parse_args().requests
    alone: list[float] = []
    whole: list[float] = []
    with tempfile.TemporaryDirectory(prefix="tokenpost-bench-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        folder = make_model(home / "model")
        engine = open_engine(folder)
        with running(home, "--model", f"{MODEL}={folder}") as port:
            for index in range(num_requests + NUM_WARM_UP):
                alone.append(first_in_process(engine, index))
                whole.append(first_through_platform(port, index))
    alone, whole = alone[NUM_WARM_UP:], whole[NUM_WARM_UP:]
    table = Table(title=f"milliseconds to the first token, idle, {num_requests} requests one after another")
    for heading in ("", "p50", "p90"):
        table.add_column(heading, justify="right")
    for name, times in (("in process", alone), ("platform", whole)):
        table.add_row(name, f"{statistics.median(times):.1f}", f"{statistics.quantiles(times, n=10)[8]:.1f}")
    table.add_row("added", f"{statistics.median(whole) - statistics.median(alone):.1f}", "")
    Console().print(table)


if __name__ == "__main__":
    main()
