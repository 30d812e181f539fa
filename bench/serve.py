"""Our engine over HTTP, bare and in the whole platform, beside other servers of the same model, in one run.

python -m bench.serve [--peers FOLDER] [--dtype float32] [--only bare --only vllm] [--rounds 3] [--json FILE]

64 prompt tokens in, 128 out, greedy, streamed, at 1, 8, 32 and 64 streams; then 8 prompts of 512 tokens with one token
out. All servers of a dtype are up; rounds go from one to the next, and those not measured are stopped (SIGSTOP) so that
an idle one cannot take processor time. The best round of each counts. Every round has prompts of its own, so nobody's
prefix cache helps.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from bench import targets
from bench.models import make_model
from bench.platform import free_port
from bench.stream_client import Round, percentile, request_of, run_together
from bench.targets import BARE, DTYPES, PEERS, PLATFORM, Server, Target

NUM_STREAMS = (1, 8, 32, 64)
NUM_PROMPT, NUM_OUTPUT = 64, 128
NUM_PREFILLS, NUM_PREFILL = 8, 512
_PREFILL = "prefill"
console = Console(width=140)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One round of one server.

    case: number of streams, or `prefill`
    rate: output tokens a second, or prompt tokens a second
    p50_s, p99_s: time between two texts of a stream; for prefill, of the time to the first text
    steady_p99_s: the same while all streams run and no prompt is read; 0 for prefill
    """

    target: str
    dtype: str
    case: str
    rate: float
    p50_s: float
    p99_s: float
    steady_p99_s: float


class Prompts:
    """Prompts of whole words, so that ids and text say the same to everybody."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        vocabulary = self._tokenizer.get_vocab()
        self._words = sorted(number for word, number in vocabulary.items() if re.fullmatch("Ġ[a-z]{3,}", word))

    def draw(self, numbers: random.Random, num_tokens: int) -> list[int]:
        """Random words."""
        return numbers.choices(self._words, k=num_tokens)

    def text_of(self, prompt: list[int]) -> str:
        """The same prompt as text."""
        text = self._tokenizer.decode(prompt)
        assert self._tokenizer.encode(text).ids == prompt, "text and ids disagree"
        return text


def requests_for(
    target: Target, prompts: Prompts, sampled: list[list[int]], num_output: int, folder: Path
) -> list[bytes]:
    """A request for each prompt."""
    usual: dict[str, object] = {
        "model": target.model_name or str(folder),
        "max_tokens": num_output,
        "temperature": 0,
        "stream": True,
    }
    # `transformers serve` refuses fields that it does not know, and tells usage without being asked.
    options: dict[str, object] = {"stream_options": {"include_usage": True}} if target.has_ids else {}
    return [
        request_of(
            "/v1/completions",
            usual | options | target.fields | {"prompt": prompt if target.has_ids else prompts.text_of(prompt)},
        )
        for prompt in sampled
    ]


def measure_case(server: Server, case: str, prompts: Prompts, seed: str, folder: Path) -> Round:
    """One round; the same seed makes the same prompts for every server."""
    numbers = random.Random(seed)
    num_prompts, num_prompt, num_output = int(case) if case != _PREFILL else NUM_PREFILLS, NUM_PROMPT, NUM_OUTPUT
    if case == _PREFILL:
        num_prompt, num_output = NUM_PREFILL, 1
    sampled = [prompts.draw(numbers, num_prompt) for _ in range(num_prompts)]
    requests = requests_for(server.target, prompts, sampled, num_output, folder)
    done = uvloop.run(run_together(server.port, requests))
    if done.num_tokens != num_prompts * num_output:
        console.print(f"{server.target.name}: {done.num_tokens} tokens instead of {num_prompts * num_output}")
    return done


def figure_of(server: Server, dtype: str, case: str, done: Round) -> Figure:
    """What a round says."""
    is_prefill = case == _PREFILL
    times = done.first_s if is_prefill else done.gaps_s
    return Figure(
        target=server.target.name,
        dtype=dtype,
        case=case,
        rate=NUM_PREFILLS * NUM_PREFILL / done.took_s if is_prefill else done.rate,
        p50_s=percentile(times, 0.5),
        p99_s=percentile(times, 0.99),
        steady_p99_s=0.0 if is_prefill else percentile(done.steady_s, 0.99),
    )


def measure(servers: list[Server], dtype: str, prompts: Prompts, rounds: int, folder: Path) -> Iterator[Figure]:
    """Every round of every server, in turn; the first of each case warms up and does not count."""
    for round_no in range(rounds + 1):
        for case in [*map(str, NUM_STREAMS), _PREFILL]:
            for server in servers:
                server.wake()
                try:
                    done = measure_case(server, case, prompts, f"{round_no} {case}", folder)
                finally:
                    server.sleep()
                figure = figure_of(server, dtype, case, done)
                console.print(f"round {round_no}, {case:>7}: {server.target.name:>12} {figure.rate:8.0f} tokens/s")
                if round_no:
                    yield figure


@contextmanager
def running(chosen: list[Target], peers: Path, model: Path, home: Path, dtype: str) -> Iterator[list[Server]]:
    """All of them, loaded and asleep."""
    with ExitStack() as stack:
        servers = []
        for target in chosen:
            began = time.monotonic()
            place = targets.place_of(peers, model, home / f"{target.name}-{dtype}", dtype)
            place.home.mkdir()
            try:
                server = targets.start(target, place)
            except (SystemExit, subprocess.CalledProcessError) as error:
                console.print(f"{target.name}: left out: {error}")
                continue
            stack.callback(server.stop)
            server.sleep()
            console.print(f"{target.name}, {dtype}: up in {time.monotonic() - began:.0f} s")
            servers.append(server)
        yield servers


def best_of(figures: list[Figure], target: str, dtype: str, case: str) -> Figure | None:
    """The fastest round."""
    rounds = [one for one in figures if (one.target, one.dtype, one.case) == (target, dtype, case)]
    return max(rounds, key=lambda one: one.rate, default=None)


def rates_table(figures: list[Figure], dtype: str) -> Table:
    """Tokens a second, and the time between two texts."""
    table = Table(
        title=f"{dtype}: tokens/s (p50 / p99 / p99 while no prompt is read, of the time between two texts, ms; "
        "p50 / p99 of the first for prefill)"
    )
    table.add_column("server")
    for case in [*NUM_STREAMS, _PREFILL]:
        table.add_column(str(case), justify="right")
    for target in dict.fromkeys(one.target for one in figures if one.dtype == dtype):
        found = [best_of(figures, target, dtype, str(case)) for case in [*NUM_STREAMS, _PREFILL]]
        table.add_row(target, *map(_rate_cell, found))
    return table


def _rate_cell(one: Figure | None) -> str:
    if one is None:
        return "-"
    times_s = [one.p50_s, one.p99_s] + ([one.steady_p99_s] if one.steady_p99_s else [])
    return f"{one.rate:.0f} ({' / '.join(f'{time_s * 1e3:.1f}' for time_s in times_s)})"


def ratios_table(figures: list[Figure], dtype: str) -> Table:
    """The bare server's rate over each peer's, and the platform's over the bare server's."""
    table = Table(title=f"{dtype}: ratios of the best rounds")
    table.add_column("")
    for case in [*NUM_STREAMS, _PREFILL]:
        table.add_column(str(case), justify="right")
    names = [one for one in dict.fromkeys(one.target for one in figures) if one != BARE.name]
    for name in names:
        ours, theirs = (name, BARE.name) if name == PLATFORM.name else (BARE.name, name)
        cells = [_ratio(figures, ours, theirs, dtype, str(case)) for case in [*NUM_STREAMS, _PREFILL]]
        table.add_row(f"{ours} / {theirs}", *cells)
    return table


def _ratio(figures: list[Figure], ours: str, theirs: str, dtype: str, case: str) -> str:
    above, below = best_of(figures, ours, dtype, case), best_of(figures, theirs, dtype, case)
    return f"{above.rate / below.rate:.2f}" if above and below else "-"


def ceiling() -> float:
    """Tokens a second of 64 streams that cost nothing to make: what client and server can carry."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.bare_server", "--port", str(port), "--empty"])
    fields: dict[str, object] = {"prompt": [1] * NUM_PROMPT, "max_tokens": NUM_OUTPUT}
    requests = [request_of("/v1/completions", fields)] * max(NUM_STREAMS)
    try:
        while True:
            try:
                return max(uvloop.run(run_together(port, requests)).rate for _ in range(3))
            except ConnectionRefusedError:
                time.sleep(0.1)
    finally:
        process.kill()
        process.wait()


def _chosen(peers: Path, only: list[str]) -> list[Target]:
    chosen = []
    for target in (BARE, PLATFORM, *PEERS):
        if only and target.name not in only:
            continue
        if targets.is_installed(target, peers):
            chosen.append(target)
        else:
            console.print(f"{target.name}: not installed")
    return chosen


def _leave(*_: object) -> None:
    raise SystemExit("ended")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", type=Path, default=Path("peers"), help="folder with one environment for each peer")
    parser.add_argument("--model", type=Path, default=Path(tempfile.gettempdir()) / "tokenpost-bench-40m")
    parser.add_argument("--dtype", choices=DTYPES, action="append")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model, peers = make_model(arguments.model.resolve()), arguments.peers.resolve()
    prompts = Prompts(model)
    # The servers have sessions of their own: whoever ends the bench ends them through it.
    signal.signal(signal.SIGTERM, _leave)
    figures: list[Figure] = []
    console.print(f"load average before: {os.getloadavg()[0]:.1f}; server and client carry {ceiling():,.0f} tokens/s")
    with tempfile.TemporaryDirectory(prefix="tokenpost-serve-", ignore_cleanup_errors=True) as home:
        for dtype in arguments.dtype or DTYPES:
            with running(_chosen(peers, arguments.only), peers, model, Path(home), dtype) as servers:
                figures += measure(servers, dtype, prompts, arguments.rounds, model)
            console.print(rates_table(figures, dtype), ratios_table(figures, dtype))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(one) for one in figures], indent=1))


if __name__ == "__main__":
    main()
