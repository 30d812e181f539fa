"""What `bench.gpu` reckons, and that it runs to its end; a CPU's times say nothing of a GPU."""

import pytest
import torch
from transformers import Qwen3ForCausalLM

from bench import gpu
from bench.gpu import (
    Course,
    Size,
    Step,
    covered,
    decode_bytes,
    decode_chunks,
    measure_launching,
    measure_shares,
    prefill_operations,
)
from tests.model.gpu.machines import CPU
from workers.engine.memory import BLOCK_SIZE, CachePlan
from workers.model.architecture.probe import attention_layers
from workers.model.gpu.assembly import gpu_runner
from workers.model.gpu.kernels import TorchKernels
from workers.model.gpu.runner import GpuRunner
from workers.model.prepared_model import Prepared
from workers.model.resources.memory_options import LoadLimits
from workers.model.sampling.sampled import Vocabulary
from workers.model.sampling.sampler import torch_sampler

TINY = Size(
    num_layers=2,
    hidden_size=32,
    intermediate_size=48,
    num_heads=4,
    vocab_size=200,
    num_kv_heads=2,
    head_dim=16,
    dtype=torch.float32,
)
SHORT = Course(context=40, batches=(1, 64), num_prompt_tokens=60, num_steps=1, copied_bytes=1 << 16, side=16)


def made_on_a_cpu(size: Size, device: torch.device, limits: LoadLimits) -> tuple[Qwen3ForCausalLM, Prepared]:
    """The GPU's runner without a GPU."""
    model = gpu.random_model(size, device)
    plan = CachePlan(num_blocks=4, block_size=BLOCK_SIZE, max_len=128, bytes_per_block=2 * 2 * 2 * 16 * 4 * BLOCK_SIZE)
    sampler = torch_sampler(Vocabulary(size=size.vocab_size, eos_token_ids=()), device)
    runner = gpu_runner(model, attention_layers(model), TorchKernels(), plan, limits.max_running, sampler)
    return model, Prepared(runner=runner, plan=plan, native=None, how="a CPU")


def test_every_line_is_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GpuRunner, "num_graphs", 1)

    measure_shares(TINY, SHORT, CPU, made_on_a_cpu)
    measure_launching(TINY, SHORT, CPU, made_on_a_cpu)

    lines = capsys.readouterr().out.splitlines()
    figures = [line for line in lines if line.endswith(("not measured", " s"))]
    assert [line[:24].strip() for line in figures] == [
        "decode, batch 1",
        "prefill, 60 tokens",
        "eager",
        "eager and graphs",
        "compiled",
        "compiled and graphs",
    ]
    # Only what a GPU alone can tell is missing.
    assert all(line.count("not measured") == 1 for line in figures)
    assert any("the cache is too small" in line for line in lines)


def test_a_graph_that_could_not_be_captured_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    measure_launching(TINY, SHORT, CPU, made_on_a_cpu)

    assert capsys.readouterr().out.count("no graph could be captured") == 2


def test_time_in_which_several_kernels_run_counts_once() -> None:
    assert covered([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 2.5)]) == 4.0
    assert covered([]) == 0.0


def test_idle_is_what_no_kernel_fills() -> None:
    assert Step(wall_s=0.010, busy_s=0.004).idle == "60%"
    # Two clocks may differ by a little.
    assert Step(wall_s=0.010, busy_s=0.0101).idle == "0%"
    assert Step(wall_s=0.010, busy_s=None).idle == "not measured"


def test_a_decode_step_reads_all_weights_but_the_embeddings_and_every_position() -> None:
    model, prepared = made_on_a_cpu(TINY, CPU, LoadLimits(max_running=1))
    # Of a layer: queries and output 32 x 64, keys and values 32 x 32, three of 32 x 48, norms of 32 and of a head's 16.
    layer = 2 * 32 * 64 + 2 * 32 * 32 + 3 * 32 * 48 + 2 * 32 + 2 * 16
    weights = 2 * layer + 32 + 200 * 32

    assert decode_bytes(model, prepared, num_seqs=3, context=40) == 4 * (weights + 3 * 40 * 2 * 2 * 32)


def test_a_prompt_takes_two_operations_for_each_weight_and_half_of_all_pairs() -> None:
    model = gpu.random_model(TINY, CPU)
    layers = sum(one.numel() for one in model.model.layers.parameters())
    pairs = 60 * 60 / 2

    assert prefill_operations(model, 60) == 2 * 60 * layers + 2 * (2 + 2) * 64 * pairs


def test_sequences_of_a_step_have_blocks_of_their_own() -> None:
    chunks = decode_chunks(3, 40, BLOCK_SIZE)

    assert [list(chunk.blocks) for chunk in chunks] == [[0, 1], [2, 3], [4, 5]]
    assert all((chunk.start, chunk.end) == (39, 40) for chunk in chunks)
