"""A thousand mixed requests leave memory where it was."""

import gc
import random
import tracemalloc
from dataclasses import replace

import pytest

from tests.engine import invariants
from tests.engine.checked import LIMITS, POISON, TEXT, CheckedRunner, request
from workers.engine.engine import Engine

NUM_REQUESTS = 1000
# Tables that grew a little; a hundred bytes lost for each request would be more.
MAX_GROWN_BYTES = 16 * 1024


def live(engine: Engine, runner: CheckedRunner, numbers: random.Random, tag: str) -> None:
    """Requests of all kinds come while others run; some are cancelled, some are bad, some steps fail."""
    for index in range(NUM_REQUESTS):
        prompt = [numbers.randint(1, 3) for _ in range(numbers.randint(1, 24))]
        if numbers.random() < 0.05:
            prompt[-1] = POISON
        engine.add(
            request(
                f"{tag}{index}",
                prompt=tuple(prompt),
                max_tokens=numbers.randint(0, 20),
                seed=index,
                priority=numbers.randint(-1, 1),
                cache_salt=numbers.choice(("", "mine")),
                logprobs=numbers.choice((None, 1)),
                prompt_logprobs=numbers.choice((None, None, 1)),
            )
        )
        if numbers.random() < 0.03:
            runner.num_faults = 1
        if numbers.random() < 0.03:
            runner.num_memory_faults, runner.max_step_tokens = 1, 1
        if numbers.random() < 0.15:
            engine.cancel(f"{tag}{numbers.randint(0, index)}")
        for _ in range(numbers.randint(0, 4)):
            engine.step()
    while engine.has_work:
        engine.step()
    for kept in (runner.batches, runner.sizes, runner.asked):
        kept.clear()


@pytest.mark.parametrize("num_ahead", [0, 1])
def test_a_thousand_mixed_requests_cancels_and_faults_leave_memory_where_it_was(num_ahead: int) -> None:
    limits = replace(LIMITS, num_blocks=24)
    runner = CheckedRunner(limits, num_ahead)
    engine = Engine(runner, TEXT, limits)
    tracemalloc.start()
    live(engine, runner, random.Random(1), "warm")
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]

    live(engine, runner, random.Random(2), "s")

    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert not runner.broken
    assert engine.stats().num_step_faults > 20
    assert engine.stats().num_preemptions > 0
    assert engine.stats().num_blocks_used == engine.num_running == engine.num_waiting == 0
    assert engine._scheduler.blocks.num_available == limits.num_blocks
    assert not engine._scheduler.cautious
    assert not engine._scheduler.isolated
    invariants.check(engine)
    assert grown < MAX_GROWN_BYTES
