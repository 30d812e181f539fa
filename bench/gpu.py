"""What a GPU could do, and what the runner reaches of it, on random weights: no files, no network.

python -m bench.gpu [--shape 8b|0.6b] [--context 512]

Exits with 2 where torch sees no GPU.
"""

import argparse
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from storage.contract import SamplingParams
from workers.engine.runner import Chunk
from workers.model.limits import LoadLimits
from workers.model.preparation import Prepared, prepare
from workers.model.sampling.sampler import Sampler

NUM_STEPS = 50
BATCHES = (1, 64, 256)
NUM_PROMPT_TOKENS = 2048
# Shares of the roofline that design/engine.md asks of an H200.
DECODE_TARGETS = {1: 0.60, 64: 0.60, 256: 0.50}
PREFILL_TARGET = 0.45


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Measures of a Qwen3-shaped model."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    vocab_size: int = 151936


SIZES = {
    "0.6b": Size(num_layers=28, hidden_size=1024, intermediate_size=3072, num_heads=16),
    "8b": Size(num_layers=36, hidden_size=4096, intermediate_size=12288, num_heads=32),
}


def make(size: Size, device: torch.device, limits: LoadLimits) -> tuple[Qwen3ForCausalLM, Prepared]:
    """The model with random weights in bfloat16, and its runner."""
    config = Qwen3Config(
        vocab_size=size.vocab_size,
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        dtype=torch.bfloat16,
    )
    torch.manual_seed(0)
    with device:
        model = Qwen3ForCausalLM(config).to(torch.bfloat16).eval()
    sampler = Sampler(vocab_size=size.vocab_size, eos_token_ids=(), device=device)
    return model, prepare(model, limits, sampler, None)


def seconds(work: Callable[[], object], times: int, device: torch.device) -> float:
    """Seconds of one run of many, after three that do not count."""
    for _ in range(3):
        work()
    _wait(device)
    started = time.perf_counter()
    for _ in range(times):
        work()
    _wait(device)
    return (time.perf_counter() - started) / times


def bandwidth(device: torch.device, num_bytes: int = 1 << 32) -> float:
    """Bytes a second of a large copy, those read and those written."""
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / seconds(lambda: target.copy_(source), 10, device)


def peak(device: torch.device, side: int = 8192) -> float:
    """Operations a second of a large square product in bfloat16."""
    factor = torch.randn(side, side, dtype=torch.bfloat16, device=device)
    return 2 * side**3 / seconds(lambda: factor @ factor, 10, device)


def decode_chunks(num_seqs: int, context: int, block_size: int) -> list[Chunk]:
    """The same step for each of many sequences, with blocks of its own."""
    width = -(-context // block_size)
    return [_chunk(row, range(row * width, (row + 1) * width), context - 1, context) for row in range(num_seqs)]


def _chunk(row: int, blocks: range, start: int, end: int) -> Chunk:
    return Chunk(
        sequence_id=str(row),
        blocks=array("i", blocks),
        tokens=[(row + place) % 100 for place in range(end)],
        start=start,
        end=end,
        num_prompt=end,
        sampling=SamplingParams(max_tokens=1, temperature=0.0),
    )


def step_seconds(prepared: Prepared, chunks: list[Chunk], device: torch.device, times: int) -> float:
    """Seconds of a step whose output is collected, one launch ahead where the runner can."""
    runner = prepared.runner

    def step() -> None:
        runner.launch(chunks)
        runner.collect()

    if not runner.num_ahead:
        return seconds(step, times, device)
    runner.launch(chunks)
    took = seconds(step, times, device)
    runner.collect()
    return took


def decode_bytes(model: Qwen3ForCausalLM, prepared: Prepared, num_seqs: int, context: int) -> int:
    """Bytes that a decode step must read: all weights but the embeddings, and the keys and values of all positions."""
    embeddings = model.get_input_embeddings().weight
    weights = sum(one.numel() * one.element_size() for one in model.parameters()) - embeddings.nbytes
    token_bytes = prepared.plan.bytes_per_block // prepared.plan.block_size
    return weights + num_seqs * context * token_bytes


def prefill_operations(model: Qwen3ForCausalLM, num_tokens: int) -> int:
    """Operations of a prompt: two for each weight and token, and the causal half of attention."""
    config = model.config
    layers = sum(one.numel() for one in model.model.layers.parameters())
    width = config.num_attention_heads * config.head_dim
    return 2 * layers * num_tokens + 2 * config.num_hidden_layers * width * num_tokens**2


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(size: Size, context: int, device: torch.device) -> None:
    """Measure and print, line by line."""
    read, products = bandwidth(device), peak(device)
    print(f"roofline: {read / 1e12:.2f} TB/s copied, {products / 1e12:.0f} Tflop/s in bfloat16")
    limits = LoadLimits(max_running=max(BATCHES), max_len=4096, max_batch_tokens=NUM_PROMPT_TOKENS)
    model, prepared = make(size, device, limits)
    print(f"runner: {prepared.how}; {prepared.plan.num_blocks} blocks")
    print(f"{'what':<24}{'ms':>9}{'tokens/s':>12}{'of roofline':>13}{'target':>8}")
    for num_seqs in BATCHES:
        if num_seqs * -(-context // prepared.plan.block_size) > prepared.plan.num_blocks:
            print(f"decode, batch {num_seqs:<10} the cache is too small")
            continue
        took = step_seconds(prepared, decode_chunks(num_seqs, context, prepared.plan.block_size), device, NUM_STEPS)
        share = decode_bytes(model, prepared, num_seqs, context) / took / read
        _print(f"decode, batch {num_seqs}", took, num_seqs, share, DECODE_TARGETS[num_seqs])
    width = -(-NUM_PROMPT_TOKENS // prepared.plan.block_size)
    took = step_seconds(prepared, [_chunk(0, range(width), 0, NUM_PROMPT_TOKENS)], device, 10)
    share = prefill_operations(model, NUM_PROMPT_TOKENS) / took / products
    _print(f"prefill, {NUM_PROMPT_TOKENS} tokens", took, NUM_PROMPT_TOKENS, share, PREFILL_TARGET)
    print("graphs against eager, idle between steps: not measured")


def _print(what: str, took: float, num_tokens: int, share: float, target: float) -> None:
    print(f"{what:<24}{took * 1e3:>9.3f}{num_tokens / took:>12.0f}{share:>13.0%}{target:>8.0%}")


def main() -> None:
    """Measure on the GPU, or say that there is none."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SIZES, default="8b")
    parser.add_argument("--context", type=int, default=512)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("torch sees no GPU: nothing was measured")
        sys.exit(2)
    print(torch.cuda.get_device_name())
    measure(SIZES[arguments.shape], arguments.context, torch.device("cuda"))


if __name__ == "__main__":
    main()
