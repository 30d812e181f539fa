"""A thousand requests of all kinds, cancels and faults on a model leave memory, blocks and tables where they were."""

import gc
import logging
import random
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import structlog

from storage.contract import SamplingParams
from tests.engine import invariants
from tests.model.conftest import prompt
from workers.engine.engine import Engine
from workers.engine.runner import Chunk, OutOfDeviceMemory, StepOutput
from workers.engine.sequence import SequenceRequest
from workers.model.load import LoadedModel, load
from workers.model.resources.memory_options import LoadLimits

NUM_REQUESTS = 1000
# By then every shape of step has come by.
NUM_WARM_UP = 500
_MIB = 1 << 20
# Arenas that the allocator keeps; the engine's own test counts objects to the byte.
MAX_GROWN_BYTES = 12 * _MIB
# What comes on top of a loaded tiny model at its busiest. Only the kernels promise that here: where torch computes,
# oneDNN keeps what it compiled for a thousand shapes, unless the command started the worker (api/cli/settings.py).
MAX_PEAK_BYTES = 30 * _MIB


class Unreliable:
    """The model's runner: some launches raise, some run out of memory, some tokens are not finite."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._runner = loaded.runner
        self._numbers = random.Random(7)
        self.num_ahead = loaded.runner.num_ahead
        self.clear, self.reset = loaded.runner.clear, loaded.runner.reset
        self.num_spoilt = 0

    def launch(self, chunks: list[Chunk]) -> None:
        """As the model, but for a few steps."""
        self._runner.launch(chunks)
        chance = self._numbers.random()
        if chance < 0.005:
            raise RuntimeError("this step fails")
        if chance < 0.01:
            raise OutOfDeviceMemory

    def collect(self) -> StepOutput:
        """What the model sampled, but for a few tokens."""
        output = self._runner.collect()
        if output.token_ids and self._numbers.random() < 0.01:
            output.token_ids[0] = None
            self.num_spoilt += 1
        return output


def asked(name: str, numbers: random.Random) -> SequenceRequest:
    """A request with some of everything."""
    sampling = SamplingParams(
        max_tokens=numbers.randint(0, 12),
        temperature=numbers.choice((0.0, 1.0)),
        top_p=numbers.choice((1.0, 0.8)),
        top_k=numbers.choice((0, 20)),
        min_p=numbers.choice((0.0, 0.05)),
        presence_penalty=numbers.choice((0.0, 0.9)),
        frequency_penalty=numbers.choice((0.0, 0.4)),
        repetition_penalty=numbers.choice((1.0, 1.3)),
        logit_bias=numbers.choice(((), ((7, 4.0),))),
        seed=numbers.randint(0, 99),
        stop=numbers.choice(((), ("a", "!"))),
        stop_token_ids=numbers.choice(((), tuple(range(100, 120)))),
        ignore_eos=numbers.random() < 0.5,
        min_tokens=numbers.choice((0, 4)),
        logprobs=numbers.choice((None, None, 2)),
        prompt_logprobs=numbers.choice((None, None, None, 1)),
    )
    ids = prompt(50, numbers.choice((0, 32, 45))) + prompt(numbers.randint(0, 500), numbers.randint(1, 30))
    return SequenceRequest(sequence_id=name, prompt=ids, sampling=sampling, priority=numbers.randint(0, 1))


def live(engine: Engine, num_requests: int, tag: str) -> int:
    """Requests come while others run, some are cancelled; the most bytes that the process held meanwhile."""
    numbers = random.Random(tag)
    process = psutil.Process()
    peak = 0
    for index in range(num_requests):
        engine.add(asked(f"{tag}{index}", numbers))
        if numbers.random() < 0.15:
            engine.cancel(f"{tag}{numbers.randint(max(0, index - 8), index)}")
        for _ in range(numbers.randint(0, 4)):
            engine.step()
        if index % 20 == 0:
            peak = max(peak, process.memory_info().rss)
    while engine.has_work:
        engine.step()
    return peak


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """A traceback for each failed step takes longer than the steps."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


def test_a_thousand_requests_cancels_and_faults_leave_memory_where_it_was(
    tiny_folder: Path, limits: LoadLimits
) -> None:
    loaded = load(str(tiny_folder), device="cpu", limits=limits)
    process = psutil.Process()
    gc.collect()
    at_load = process.memory_info().rss
    runner = Unreliable(loaded)
    engine = Engine(runner, loaded.text, loaded.limits)
    live(engine, NUM_WARM_UP, "warm")
    gc.collect()
    before = process.memory_info().rss
    kept = len(gc.get_objects())

    peak = live(engine, NUM_REQUESTS, "s")

    gc.collect()
    stats = engine.stats()
    assert process.memory_info().rss - before < MAX_GROWN_BYTES
    # Far less than one for each request.
    assert len(gc.get_objects()) - kept < NUM_REQUESTS // 2
    assert limits.kernel_folder is None or peak - at_load < MAX_PEAK_BYTES
    assert stats.num_step_faults > 5
    assert runner.num_spoilt > 5
    assert stats.num_blocks_used == stats.num_running == stats.num_waiting == 0
    assert engine._scheduler.blocks.num_available == loaded.limits.num_blocks
    invariants.check(engine)
