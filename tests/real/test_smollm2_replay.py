"""SmolLM2 gives each request the same tokens alone, batched, in chunks, cached, preempted and resumed."""

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from msgspec import structs

from storage.contract import SamplingParams
from tests.engine.checked import ids_of, run
from tests.engine.invariants import check
from tests.model.test_replay import Outputs, assert_equal
from tests.model.test_replay_mixes import MIX, Course, check_mix, choices
from tests.real.conftest import Real
from tests.real.test_smollm2 import engine_of, requests
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceRequest

MAX_TOKENS = 16
KINDS = (
    SamplingParams(max_tokens=MAX_TOKENS, temperature=0.0),
    SamplingParams(max_tokens=MAX_TOKENS, temperature=1.0, top_p=0.9, seed=7),
)


@pytest.fixture(scope="module")
def asked(smollm2: Real) -> list[SequenceRequest]:
    """Chats and beginnings of a text, half of them sampled; chats share their beginning."""
    picked = [one for number, one in enumerate(requests(smollm2)) if number % 40 in (0, 1)]
    return [structs.replace(one, sampling=KINDS[number // 2 % 2]) for number, one in enumerate(picked)]


@pytest.fixture(scope="module")
def alone(smollm2: Real, asked: list[SequenceRequest]) -> Outputs:
    """Every request by itself, in an engine of its own."""
    return {one.sequence_id: run(engine_of(smollm2), one)[one.sequence_id] for one in asked}


@pytest.mark.parametrize("max_batch_tokens", [16, 23, 128])
def test_all_together_in_chunks(
    smollm2: Real, asked: list[SequenceRequest], alone: Outputs, max_batch_tokens: int
) -> None:
    limits = replace(smollm2.loaded.limits, max_batch_tokens=max_batch_tokens)

    assert_equal(run(Engine(smollm2.loaded.runner, smollm2.loaded.text, limits), *asked), alone)


def test_from_the_cache(smollm2: Real, asked: list[SequenceRequest], alone: Outputs) -> None:
    engine = engine_of(smollm2)
    longer = [
        structs.replace(
            one, prompt=(*one.prompt, *ids_of(alone[one.sequence_id])), sampling=SamplingParams(max_tokens=1)
        )
        for one in asked
    ]
    run(engine, *longer)

    again = run(engine, *asked)

    assert sum(outputs[0].num_cached for outputs in again.values()) > 0
    assert_equal(again, alone)


def test_where_room_is_short_and_sequences_are_preempted(
    smollm2: Real, asked: list[SequenceRequest], alone: Outputs
) -> None:
    limits = smollm2.loaded.limits
    # As few as one sequence of full length needs.
    short = replace(limits, num_blocks=limits.max_len // limits.block_size)
    engine = Engine(smollm2.loaded.runner, smollm2.loaded.text, short)
    outputs: Outputs = {one.sequence_id: [] for one in asked}
    first, urgent = asked[::2], asked[1::2]
    for one in first:
        engine.add(structs.replace(one, priority=1))
    while urgent or engine.has_work:
        if urgent and (len(outputs[first[0].sequence_id]) > 4 or not engine.has_work):
            engine.add(urgent.pop())
        for output in engine.step():
            outputs[output.sequence_id].append(output)
        check(engine)

    assert engine.stats().num_preemptions > 0
    assert_equal(outputs, alone)


def test_resumed_on_a_second_engine(smollm2: Real, asked: list[SequenceRequest], alone: Outputs) -> None:
    numbers = random.Random(3)
    cuts = {one.sequence_id: numbers.randrange(len(alone[one.sequence_id])) for one in asked}
    resumed = [
        structs.replace(one, emitted=tuple(ids_of(alone[one.sequence_id][: cuts[one.sequence_id]]))) for one in asked
    ]

    rests = run(engine_of(smollm2), *resumed)

    assert_equal(rests, {name: outputs[cuts[name] :] for name, outputs in alone.items()})


@settings(
    max_examples=3,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(**MIX)
def test_every_request_of_a_mix_gets_what_it_gets_alone(
    smollm2: Real, picked: list[SequenceRequest], num_choices: int, course: Course
) -> None:
    loaded = replace(smollm2.loaded, limits=replace(smollm2.loaded.limits, max_running=6))

    check_mix(loaded, loaded, choices(picked, num_choices), course)
