"""What grammars cost: `python -m bench.constrained_streams [--streams 32] [--dtype bfloat16]`.

Tokens a second of constrained streams beside those of free ones, on SmolLM2 (vocabulary of 49,152) and on a random
model of its shape with Qwen3's tokenizer (151,936), best of some rounds in turns; and microseconds of a mask, of a
token and of a compilation. The schema never ends by itself. Models and tokenizers come from the packages that
`python -m tests.real.packages` fetches.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from llguidance import LLMatcher
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from storage.contract import SamplingParams
from tests.real.packages import SMOLLM2, TOKENIZERS, cache_folder, fetched
from workers.constraint.constraint import Constraint
from workers.constraint.mask_buffer import MaskBuffer
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceRequest
from workers.model.gguf.conversion_cache import converted_folder
from workers.model.load import LoadedModel, load
from workers.model.progress import write_to
from workers.model.resources.memory_options import LoadLimits

_SPACING = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}


def grammar_of(name: dict[str, object], note: dict[str, object]) -> str:
    """Of an array of objects that never ends by itself."""
    person = {
        "type": "object",
        "properties": {
            "name": name,
            "role": {"enum": ["author", "reader", "reviewer"]},
            "age": {"type": "integer", "minimum": 0, "maximum": 130},
            "notes": {"type": "array", "items": note, "minItems": 1, "maxItems": 4},
        },
        "required": ["name", "role", "age", "notes"],
        "additionalProperties": False,
    }
    schema = json.dumps({"type": "array", "items": person, "minItems": 1000})
    return LLMatcher.grammar_from_json_schema(schema, overrides=_SPACING)  # type: ignore[arg-type]  # a dict


# Masks of strings with a limit are the most expensive ones: each state of the count is another one.
GRAMMARS = {
    "strings": grammar_of({"type": "string"}, {"type": "string"}),
    "limited strings": grammar_of({"type": "string", "maxLength": 40}, {"type": "string", "maxLength": 80}),
}
NUM_PROMPT, NUM_OUTPUT = 64, 128


@contextmanager
def smollm2(dtype: str, limits: LoadLimits) -> Iterator[LoadedModel]:
    """The real model."""
    number_type = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    folder = converted_folder(
        fetched(SMOLLM2) / SMOLLM2.members[0], number_type, cache_folder() / "converted", write_to(None)
    )
    yield load(str(folder), device="cpu", dtype=dtype, limits=limits)  # type: ignore[arg-type]  # one of the names


@contextmanager
def random_of_152k(dtype: str, limits: LoadLimits) -> Iterator[LoadedModel]:
    """Random weights of SmolLM2's shape under Qwen3's vocabulary."""
    tokenizer = AutoTokenizer.from_pretrained(fetched(TOKENIZERS["qwen3"]) / "package" / "models")
    config = AutoConfig.for_model(
        "llama",
        vocab_size=151936,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        eos_token_id=151645,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config = GenerationConfig(eos_token_id=151645)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        yield load(folder, device="cpu", dtype=dtype, limits=limits)  # type: ignore[arg-type]  # one of the names


def rate(loaded: LoadedModel, num_streams: int, grammar: str | None, seed: int) -> float:
    """Tokens a second of streams that run together, from the first to the last."""
    dice = random.Random(seed)
    engine = Engine(loaded.runner, loaded.text, loaded.limits)
    for place in range(num_streams):
        engine.add(
            SequenceRequest(
                sequence_id=str(place),
                prompt=tuple(dice.randrange(1000, 40000) for _ in range(NUM_PROMPT)),
                sampling=SamplingParams(max_tokens=NUM_OUTPUT, seed=seed + place, ignore_eos=True),
                matcher=None if grammar is None else loaded.grammars.matcher(grammar),
            )
        )
    num_tokens = 0
    began = None
    while engine.has_work:
        outputs = engine.step()
        if outputs and began is None:
            began = time.perf_counter()
            continue
        num_tokens += sum(len(output.token_ids) for output in outputs)
    assert began is not None
    return num_tokens / (time.perf_counter() - began)


def timed_us(call: Callable[[], object]) -> float:
    """Microseconds of one run."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e6


def costs(loaded: LoadedModel, grammar: str) -> dict[str, list[float]]:
    """Microseconds of each mask and of each token along outputs of random allowed tokens."""
    vocab_size, eos_token_ids = loaded.limits.vocab_size, loaded.limits.eos_token_ids
    buffer = MaskBuffer(vocab_size)
    found: dict[str, list[float]] = {"a mask": [], "a token": [], "forced tokens": []}
    for seed in range(20):
        dice = random.Random(seed)
        sampling = SamplingParams(max_tokens=1000, ignore_eos=True)
        constraint = Constraint(loaded.grammars.matcher(grammar), sampling, eos_token_ids)
        for _ in range(100):
            found["a mask"].append(timed_us(lambda constraint=constraint: buffer.fill([constraint])))  # type: ignore[misc]
            allowed = torch.frombuffer(buffer.words(1), dtype=torch.uint8).numpy()
            words = [place for place in range(len(allowed)) if allowed[place]]
            place = dice.choice(words)
            bits = [bit for bit in range(8) if allowed[place] >> bit & 1]
            token_id = 8 * place + dice.choice(bits)
            found["a token"].append(
                timed_us(lambda constraint=constraint, token_id=token_id: constraint.take(token_id))
            )  # type: ignore[misc]
            found["forced tokens"].append(timed_us(constraint.forced_ids))
    found["a compilation"] = [timed_us(lambda: loaded.grammars._compiled(grammar)) for _ in range(20)]
    return found


def report(name: str, loaded: LoadedModel, num_streams: int, num_rounds: int) -> None:
    """Print the tables of one model."""
    rates: dict[str, list[float]] = {"free": [], **{kind: [] for kind in GRAMMARS}}
    for seed in range(num_rounds):
        for kind, found in rates.items():
            found.append(rate(loaded, num_streams, GRAMMARS.get(kind), seed))
    free = max(rates["free"])
    for kind, found in rates.items():
        print(f"{name}, {num_streams} streams, {kind}: {max(found):.0f} tokens/s, {100 * max(found) / free:.1f} %")
    table = Table("microseconds", "", "mean", "p50", "p99")
    for kind, grammar in GRAMMARS.items():
        for what, values in costs(loaded, grammar).items():
            percentiles = statistics.quantiles(values, n=100)
            cells = (f"{one:.1f}" for one in (statistics.mean(values), percentiles[49], percentiles[98]))
            table.add_row(what, kind, *cells)
    Console().print(table)


def main() -> None:
    """Measure both models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--models", nargs="+", default=["smollm2", "random152k"])
    options = parser.parse_args()
    limits = LoadLimits(max_running=options.streams, max_len=NUM_PROMPT + NUM_OUTPUT + 1)
    models = {"smollm2": smollm2, "random152k": random_of_152k}
    for name in options.models:
        with models[name](options.dtype, limits) as loaded:
            report(name, loaded, options.streams, options.rounds)


if __name__ == "__main__":
    main()
