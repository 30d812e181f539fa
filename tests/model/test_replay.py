"""The same request gives the same tokens however it is run: alone, among others, in chunks, resumed elsewhere."""

import random
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.engine.checked import ids_of, run, text_of
from tests.model.conftest import greedy, seeded
from workers.engine.engine import Engine
from workers.engine.runner import Chunk
from workers.engine.sequence import SequenceOutput
from workers.model.load import LoadedModel, load
from workers.model.resources.memory_options import LoadLimits

NUM_REQUESTS = 24
REQUESTS = [
    make(salt, num_prompt=3 + salt * 5 % 37, max_tokens=24)
    for salt in range(NUM_REQUESTS // 2)
    for make in (greedy, seeded)
]
Outputs = dict[str, list[SequenceOutput]]


def engine_of(loaded: LoadedModel, max_batch_tokens: int = 64) -> Engine:
    return Engine(loaded.runner, loaded.text, replace(loaded.limits, max_batch_tokens=max_batch_tokens))


@pytest.fixture(scope="module")
def alone(tiny: LoadedModel) -> Outputs:
    """Every request by itself."""
    engine = engine_of(tiny)
    return {one.sequence_id: run(engine, one)[one.sequence_id] for one in REQUESTS}


def assert_equal(outputs: Outputs, alone: Outputs) -> None:
    assert {name: ids_of(got) for name, got in outputs.items()} == {name: ids_of(got) for name, got in alone.items()}
    assert {name: text_of(got) for name, got in outputs.items()} == {name: text_of(got) for name, got in alone.items()}


def test_seeds_matter(tiny: LoadedModel, alone: Outputs) -> None:
    one = REQUESTS[1]
    other = msgspec.structs.replace(one, sampling=msgspec.structs.replace(one.sampling, seed=5))

    assert ids_of(run(engine_of(tiny), other)[one.sequence_id]) != ids_of(alone[one.sequence_id])


@pytest.mark.parametrize("max_batch_tokens", [6, 17, 64])
def test_all_together_in_chunks_of_any_size(tiny: LoadedModel, alone: Outputs, max_batch_tokens: int) -> None:
    assert_equal(run(engine_of(tiny, max_batch_tokens), *REQUESTS), alone)


def test_one_after_another_into_a_running_batch(tiny: LoadedModel, alone: Outputs) -> None:
    engine = engine_of(tiny)
    order = random.Random(1).sample(REQUESTS, NUM_REQUESTS)
    outputs: Outputs = {one.sequence_id: [] for one in REQUESTS}
    while order or engine.has_work:
        if order:
            engine.add(order.pop())
        for output in [*engine.step(), *engine.step()]:
            outputs[output.sequence_id].append(output)

    assert_equal(outputs, alone)


def test_among_sequences_that_are_cancelled(tiny: LoadedModel, alone: Outputs) -> None:
    engine = engine_of(tiny)
    for one in REQUESTS:
        engine.add(one)
        engine.add(msgspec.structs.replace(one, sequence_id="x" + one.sequence_id))
    numbers = random.Random(2)
    outputs: Outputs = {one.sequence_id: [] for one in REQUESTS}
    while engine.has_work:
        engine.cancel("x" + numbers.choice(REQUESTS).sequence_id)
        for output in engine.step():
            outputs.setdefault(output.sequence_id, []).append(output)

    assert_equal({one.sequence_id: outputs[one.sequence_id] for one in REQUESTS}, alone)


def test_resumed_on_a_second_engine(tiny_folder: Path, limits: LoadLimits, alone: Outputs) -> None:
    second = engine_of(load(str(tiny_folder), device="cpu", limits=limits))
    numbers = random.Random(3)
    rests: Outputs = {}
    for one in REQUESTS:
        cut = numbers.randrange(len(alone[one.sequence_id]))
        emitted = tuple(ids_of(alone[one.sequence_id][:cut]))
        rests[one.sequence_id] = alone[one.sequence_id][cut:]
        second.add(msgspec.structs.replace(one, emitted=emitted))

    # How much of a prompt was found in the cache depends on what ran before.
    reported = {name: [msgspec.structs.replace(one, num_cached=0) for one in got] for name, got in run(second).items()}
    expected = {name: [msgspec.structs.replace(one, num_cached=0) for one in got] for name, got in rests.items()}
    assert reported == expected


def test_after_a_step_that_failed(tiny: LoadedModel, alone: Outputs) -> None:
    engine = Engine(FailingNow(tiny), tiny.text, tiny.limits)

    assert_equal(run(engine, *REQUESTS), alone)


class FailingNow:
    """The model's runner with a memory that gives out in every ninth step, after it was written to."""

    num_ahead = 0

    def __init__(self, loaded: LoadedModel) -> None:
        runner = loaded.runner
        self.collect, self.clear, self.reset = runner.collect, runner.clear, runner.reset
        self._launch = runner.launch
        self._num_steps = 0

    def launch(self, chunks: list[Chunk]) -> None:
        """As the model, but for every ninth step."""
        self._launch(chunks)
        self._num_steps += 1
        if self._num_steps % 9 == 0:
            raise MemoryError
