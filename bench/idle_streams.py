"""What an idle stream costs an API process in memory: `python -m bench.idle_streams [--streams 1000]`.

One process as `tokenpost serve` runs it, a real Redis, no worker: each stream is of a background job of its own that
stays queued, over a connection of its own. A figure is how much the process's resident memory grew, after some streams
before that, so that what is made once is made.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from api.cli.home import Home
from bench.accept import prompt_of, serving
from bench.sse import Listener, open_streams, streaming_request

TARGET_KB = 60
WORDS = (0, 36, 500)
_PLAIN = b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
_NUM_FIRST = 300
# In this time every idle stream was looked after at least once: its row was read, and its log.
_SETTLE_S = 3.0

Open = Callable[[int], Awaitable[list[Listener]]]


async def cost_kb(api: psutil.Process, open_some: Open, count: int) -> float:
    """Kilobytes of resident memory for each of `count` connections."""
    first = await open_some(_NUM_FIRST)
    await asyncio.sleep(_SETTLE_S)
    before = api.memory_info().rss
    rest = await open_some(count)
    await asyncio.sleep(_SETTLE_S)
    grown = api.memory_info().rss - before
    for listener in first + rest:
        listener.close()
    return grown / count / 1000


async def measure(port: int, api: psutil.Process, num_words: int, count: int) -> float:
    """Kilobytes for each stream of a prompt of so many words; of none: for each connection that is only kept alive."""
    request = streaming_request(prompt_of(num_words)) if num_words else _PLAIN
    return await cost_kb(api, lambda number: open_streams(port, number, lambda _: request), count)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    count = parser.parse_args().streams
    table = Table(title=f"resident memory of each of {count} in one API process, target of a stream: {TARGET_KB} kB")
    for heading in ("what", "kB"):
        table.add_column(heading, justify="right")
    for num_words in WORDS:
        # A process of its own for each: memory that was freed would be used again.
        with tempfile.TemporaryDirectory(prefix="tokenpost-bench-", ignore_cleanup_errors=True) as name:
            home = Home(path=Path(name))
            with serving(home, home.database_url) as (port, api):
                cost = uvloop.run(measure(port, api, num_words, count))
        what = f"stream, prompt of {num_words} words" if num_words else "connection without a request"
        table.add_row(what, f"{cost:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
