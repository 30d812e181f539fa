"""How quickly one API process says no: 1,000 calls while as many jobs wait as may.

`python -m bench.refusals [--calls 1000] [--queued 5000] [--postgres URL]`: the queue is filled, then every call is one
too many. No worker runs. The client shares this machine's processors with the API.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from api.cli.home import Home
from bench.accept import answers, serving

CONCURRENCY = (1, 8, 64)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000, help="for each row of the table")
    parser.add_argument("--queued", type=int, default=5000, help="jobs that wait, which is the bound")
    parser.add_argument("--words", type=int, default=36, help="length of the prompt")
    parser.add_argument("--postgres", metavar="URL", help="an empty database instead of SQLite")
    options = parser.parse_args()
    table = Table(title=f"refusals by one API process, {options.queued} jobs waiting")
    for heading in ("at once", "refusals/s", "p50 ms", "p99 ms", "max ms"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory(prefix="tokenpost-bench-", ignore_cleanup_errors=True) as name:
        home = Home(path=Path(name))
        settings = {"TOKENPOST_MAX_QUEUED_PER_MODEL": str(options.queued)}
        with serving(home, options.postgres or home.database_url, settings) as (port, _):
            # Until it is full; the last of these find it so.
            uvloop.run(answers(port, options.queued + 200, 16, options.words, b""))
            for concurrency in CONCURRENCY:
                rate, latencies_s = uvloop.run(answers(port, options.calls, concurrency, options.words, b"503"))
                cuts = statistics.quantiles(latencies_s, n=100)
                figures = (1e3 * cuts[49], 1e3 * cuts[98], 1e3 * max(latencies_s))
                table.add_row(str(concurrency), f"{rate:,.0f}", *(f"{figure:.1f}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
