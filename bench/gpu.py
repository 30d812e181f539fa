"""What a GPU could do, and what the runner reaches of it, on random weights: no files, no network.

python -m bench.gpu [--shape 8b|0.6b] [--context 512]

First decode and prefill of the shape, as shares of the GPU's own bandwidth and peak; then a single stream of the 0.6B
shape, whose operations are so short that launching them is what takes time: with and without compiled layers and CUDA
graphs. Idle is the part of a step in which the GPU runs no kernel.

Exits with 2 where torch sees no GPU.
"""

import argparse
import gc
import sys
import time
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]  # torch exports it without saying so
from torch.profiler import ProfilerActivity, profile
from transformers import Qwen3Config, Qwen3ForCausalLM

from storage.contract import SamplingParams
from workers.engine.runner import Chunk
from workers.model.gpu.runner import GpuRunner
from workers.model.preparation import prepare
from workers.model.prepared_model import Prepared
from workers.model.resources.memory_options import LoadLimits
from workers.model.sampling.sampled import Vocabulary

# What design/engine.md asks of an H200: shares of the roofline, graphs against eager, and idle between steps.
DECODE_TARGETS = {1: 0.60, 64: 0.60, 256: 0.50}
PREFILL_TARGET = 0.45
GRAPHS_TARGET = 3.0
IDLE_TARGET = 0.10
# Of a single stream, for two models one after the other.
_SMALL_CACHE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How much is measured.

    copied_bytes, side: of the copy and of the square product that tell what the device can do
    num_steps:          decode steps of one figure; of prefill a fifth
    """

    context: int = 512
    batches: tuple[int, ...] = tuple(DECODE_TARGETS)
    num_prompt_tokens: int = 2048
    num_steps: int = 50
    copied_bytes: int = 1 << 32
    side: int = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Measures of a Qwen3-shaped model."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    vocab_size: int = 151936
    num_kv_heads: int = 8
    head_dim: int = 128
    dtype: torch.dtype = torch.bfloat16


SIZES = {
    "0.6b": Size(num_layers=28, hidden_size=1024, intermediate_size=3072, num_heads=16),
    "8b": Size(num_layers=36, hidden_size=4096, intermediate_size=12288, num_heads=32),
}

Make = Callable[[Size, torch.device, LoadLimits], tuple[Qwen3ForCausalLM, Prepared]]


def make(size: Size, device: torch.device, limits: LoadLimits) -> tuple[Qwen3ForCausalLM, Prepared]:
    """The model with random weights, and its runner."""
    model = random_model(size, device)
    return model, prepare(model, limits, Vocabulary(size=size.vocab_size, eos_token_ids=()), None)


def random_model(size: Size, device: torch.device) -> Qwen3ForCausalLM:
    """A model of this size whose weights mean nothing."""
    config = Qwen3Config(
        vocab_size=size.vocab_size,
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        num_key_value_heads=size.num_kv_heads,
        head_dim=size.head_dim,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        dtype=size.dtype,
    )
    torch.manual_seed(0)
    with device:
        model: Qwen3ForCausalLM = Qwen3ForCausalLM(config).to(size.dtype).eval()
    return model


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


def bandwidth(device: torch.device, num_bytes: int) -> float:
    """Bytes a second of a large copy, those read and those written."""
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / seconds(lambda: target.copy_(source), 10, device)


def peak(device: torch.device, side: int) -> float:
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
        logits_from=end - 1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step takes.

    busy_s: seconds in which the GPU runs a kernel; None where there is no GPU
    """

    wall_s: float
    busy_s: float | None

    @property
    def idle(self) -> str:
        """The share of the step in which the GPU runs nothing, for people."""
        return "not measured" if self.busy_s is None else f"{max(0.0, 1 - self.busy_s / self.wall_s):.0%}"


def step_of(prepared: Prepared, chunks: list[Chunk], device: torch.device, times: int) -> Step:
    """A step whose output is collected, one launch ahead where the runner can."""
    runner = prepared.runner

    def step() -> None:
        runner.launch(chunks)
        runner.collect()

    for _ in range(runner.num_ahead):
        runner.launch(chunks)
    wall_s = seconds(step, times, device)
    busy_s = busy_seconds(step, times, device) if device.type == "cuda" else None
    for _ in range(runner.num_ahead):
        runner.collect()
    return Step(wall_s=wall_s, busy_s=busy_s)


def busy_seconds(work: Callable[[], object], times: int, device: torch.device) -> float:
    """Seconds of one run of many in which kernels or copies run on the GPU.

    A profiler slows the host and hardly the kernels, so the wall clock is read without one.
    """
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(times):
            work()
        _wait(device)
    # Annotations span what the host did meanwhile.
    spans = [
        event.time_range
        for event in profiled.events()
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    ]
    return covered((span.start, span.end) for span in spans) / 1e6 / times


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """How much of a line these spans cover; where several lie it counts once."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


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


def measure_shares(size: Size, course: Course, device: torch.device, make: Make) -> None:
    """Decode and prefill beside what the device can do."""
    read, products = bandwidth(device, course.copied_bytes), peak(device, course.side)
    print(f"roofline: {read / 1e12:.2f} TB/s copied, {products / 1e12:.0f} Tflop/s in bfloat16")
    max_batch_tokens = course.num_prompt_tokens
    limits = LoadLimits(max_running=max(course.batches), max_len=4096, max_batch_tokens=max_batch_tokens)
    model, prepared = make(size, device, limits)
    plan = prepared.plan
    print(f"runner: {prepared.how}; {plan.num_blocks} blocks")
    print(f"{'what':<24}{'ms':>9}{'tokens/s':>12}{'of roofline':>13}{'target':>8}{'idle':>14}")
    for num_seqs in course.batches:
        if num_seqs * -(-course.context // plan.block_size) > plan.num_blocks:
            print(f"decode, batch {num_seqs:<10} the cache is too small")
            continue
        step = step_of(prepared, decode_chunks(num_seqs, course.context, plan.block_size), device, course.num_steps)
        share = decode_bytes(model, prepared, num_seqs, course.context) / step.wall_s / read
        _print(f"decode, batch {num_seqs}", step, num_seqs, share, DECODE_TARGETS[num_seqs])
    chunk = _chunk(0, range(-(-max_batch_tokens // plan.block_size)), 0, max_batch_tokens)
    step = step_of(prepared, [chunk], device, max(1, course.num_steps // 5))
    share = prefill_operations(model, max_batch_tokens) / step.wall_s / products
    _print(f"prefill, {max_batch_tokens} tokens", step, max_batch_tokens, share, PREFILL_TARGET)


def _print(what: str, step: Step, num_tokens: int, share: float, target: float) -> None:
    rate = num_tokens / step.wall_s
    print(f"{what:<24}{step.wall_s * 1e3:>9.3f}{rate:>12.0f}{share:>13.0%}{target:>8.0%}{step.idle:>14}")


def measure_launching(size: Size, course: Course, device: torch.device, make: Make) -> None:
    """One sequence's decode step: layers as they are and compiled, one operation after another and as a graph."""
    print(
        f"\na single stream; asked: graphs {GRAPHS_TARGET:.0f} times as fast as eager, idle {IDLE_TARGET:.0%} at most"
    )
    print(f"{'what':<24}{'ms':>9}{'tokens/s':>12}{'of eager':>13}{'idle':>14}{'ready after':>14}")
    eager_s = None
    for is_compiled in (False, True):
        eager_s = _measure_layers(size, course, device, make, is_compiled, eager_s)
        release()


def _measure_layers(
    size: Size, course: Course, device: torch.device, make: Make, is_compiled: bool, eager_s: float | None
) -> float:
    """Two lines; seconds of what all are compared with: `eager_s`, or the first of them."""
    began = time.perf_counter()
    limits = LoadLimits(max_running=1, max_len=4096, kv_budget_bytes=_SMALL_CACHE_BYTES, is_compiled=is_compiled)
    _, prepared = make(size, device, limits)
    ready_s = time.perf_counter() - began
    runner, chunks = prepared.runner, decode_chunks(1, course.context, prepared.plan.block_size)
    assert isinstance(runner, GpuRunner), "the runner for GPUs was not to be had: its log says why"
    graphed = step_of(prepared, chunks, device, course.num_steps) if runner.num_graphs else None
    runner.release_graphs()
    alone = step_of(prepared, chunks, device, course.num_steps)
    eager_s = eager_s or alone.wall_s
    layers = "compiled" if is_compiled else "eager"
    for what, step in ((layers, alone), (f"{layers} and graphs", graphed)):
        if step is None:
            print(f"{what:<24} no graph could be captured")
            continue
        print(
            f"{what:<24}{step.wall_s * 1e3:>9.3f}{1 / step.wall_s:>12.0f}{eager_s / step.wall_s:>12.2f}x{step.idle:>14}"
            f"{ready_s:>12.0f} s"
        )
    print(f"  runner: {prepared.how}")
    return eager_s


def release() -> None:
    """Give back what a model took that nobody holds any more, before the next one looks at what is free."""
    torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()


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
    device, course = torch.device("cuda"), Course(context=arguments.context)
    measure_shares(SIZES[arguments.shape], course, device, make)
    release()
    measure_launching(SIZES["0.6b"], course, device, make)


if __name__ == "__main__":
    main()
