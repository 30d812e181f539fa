"""Token rates of the engine in process, beside transformers' static `generate` in the same run.

python -m bench.engine [--model FOLDER] [--dtype float32|bfloat16] [--threads N] [--rounds 3]

Both get the same prompts and generate the same number of tokens, greedily; the rounds alternate between them and the
best of each counts, prompts included.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from bench.models import make_model
from storage.contract import SamplingParams
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceRequest
from workers.model.limits import LoadLimits
from workers.model.load import LoadedModel, load

NUM_STREAMS = (1, 8, 32)
NUM_PROMPT_TOKENS = 64
NUM_OUTPUT_TOKENS = 128

Prompts = list[tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Output tokens a second."""

    num_streams: int
    engine: float
    static: float

    @property
    def ratio(self) -> float:
        """How many times static `generate`."""
        return self.engine / self.static


def rate_of_engine(loaded: LoadedModel, prompts: Prompts) -> float:
    """Output tokens a second of the engine, from `add` to the last token."""
    engine = Engine(loaded.runner, loaded.text, loaded.limits)
    sampling = SamplingParams(max_tokens=NUM_OUTPUT_TOKENS, temperature=0.0)
    started = time.perf_counter()
    for place, prompt in enumerate(prompts):
        engine.add(SequenceRequest(sequence_id=str(place), prompt=prompt, sampling=sampling))
    num_tokens = 0
    while engine.has_work:
        num_tokens += sum(len(output.token_ids) for output in engine.step())
    return num_tokens / (time.perf_counter() - started)


def rate_of_static(model: PreTrainedModel, prompts: Prompts) -> float:
    """Output tokens a second of one call of `generate` with the whole batch."""
    ids = torch.tensor(prompts)
    config = GenerationConfig(
        do_sample=False, max_new_tokens=NUM_OUTPUT_TOKENS, min_new_tokens=NUM_OUTPUT_TOKENS, pad_token_id=0
    )
    started = time.perf_counter()
    output = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return output[:, NUM_PROMPT_TOKENS:].numel() / (time.perf_counter() - started)


def best(rounds: int, *measures: Callable[[], float]) -> list[float]:
    """The best of each measure over rounds that alternate."""
    return [max(column) for column in zip(*([measure() for measure in measures] for _ in range(rounds)), strict=True)]


def measure(folder: Path, dtype: str, rounds: int) -> list[Rates]:
    """Rates at every number of streams."""
    limits = LoadLimits(max_running=max(NUM_STREAMS), max_len=512)
    loaded = load(str(folder), device="cpu", dtype="bfloat16" if dtype == "bfloat16" else "float32", limits=limits)
    print(loaded.description)
    static = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    numbers = random.Random(0)
    rates = []
    for num_streams in NUM_STREAMS:
        prompts = [tuple(numbers.randrange(100, 16000) for _ in range(NUM_PROMPT_TOKENS)) for _ in range(num_streams)]
        ours, theirs = best(
            rounds, lambda p=prompts: rate_of_engine(loaded, p), lambda p=prompts: rate_of_static(static, p)
        )
        rates.append(Rates(num_streams=num_streams, engine=ours, static=theirs))
    return rates


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path(tempfile.gettempdir()) / "tokenpost-bench-40m")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    structlog.configure(processors=[_drop])
    rates = measure(make_model(arguments.model), arguments.dtype, arguments.rounds)
    print(f"\n{NUM_PROMPT_TOKENS} tokens in, {NUM_OUTPUT_TOKENS} out, greedy, {arguments.threads} threads")
    print(f"{'streams':>8} {'engine tok/s':>14} {'generate tok/s':>16} {'ratio':>7}")
    for one in rates:
        print(f"{one.num_streams:>8} {one.engine:>14.1f} {one.static:>16.1f} {one.ratio:>7.2f}")


def _drop(*_: object) -> str:
    """The bench prints its own lines."""
    raise structlog.DropEvent


if __name__ == "__main__":
    main()
