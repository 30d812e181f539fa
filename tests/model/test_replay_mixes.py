"""Random mixes of requests, random measures of the engine: each request gets the tokens that it gets alone."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.contract import SamplingParams
from tests.engine import invariants
from tests.engine.checked import ids_of, run, text_of
from tests.model.conftest import LIMITS, prompt
from tests.model.tiny import END_OF_TURN
from workers.engine.engine import Engine
from workers.engine.runner import StepOutput
from workers.engine.sequence import SequenceOutput, SequenceRequest
from workers.engine.step_limits import EngineLimits
from workers.model.load import LoadedModel, load
from workers.model.native.library import Library
from workers.model.resources.memory_options import LoadLimits

SAMPLING = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 24),
    temperature=st.sampled_from([0.0, 0.7, 1.3]),
    top_p=st.sampled_from([1.0, 0.8]),
    top_k=st.sampled_from([0, 20]),
    min_p=st.sampled_from([0.0, 0.05]),
    presence_penalty=st.sampled_from([0.0, 0.9]),
    frequency_penalty=st.sampled_from([0.0, 0.4]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    logit_bias=st.sampled_from([(), ((7, 4.0), (END_OF_TURN, -100.0))]),
    seed=st.integers(0, 2),
    stop=st.sampled_from([(), ("e", "a "), ("qu",)]),
    stop_token_ids=st.sampled_from([(), tuple(range(100, 120))]),
    ignore_eos=st.booleans(),
    min_tokens=st.sampled_from([0, 4]),
    logprobs=st.sampled_from([None, 2]),
    prompt_logprobs=st.sampled_from([None, None, 1]),
)


def _request(prefix: int, tail: int, salt: int, sampling: SamplingParams, priority: int) -> SequenceRequest:
    ids = prompt(50, prefix) + prompt(60 + salt, tail)
    return SequenceRequest(sequence_id="", prompt=ids, sampling=sampling, priority=priority)


REQUESTS = st.builds(
    _request,
    prefix=st.sampled_from([0, 20, 32, 45, 64, 80]),
    tail=st.integers(1, 16),
    salt=st.integers(0, 2),
    sampling=SAMPLING,
    priority=st.integers(0, 1),
)


@dataclass(frozen=True)
class Course:
    """How a mix is run.

    gap:      steps between two arrivals
    cut:      tokens that each request has behind it when it comes, as from another worker
    fault_at: the step that fails; 0 for none
    """

    num_blocks: int
    max_batch_tokens: int
    max_prefill_tokens: int
    gap: int
    cut: int
    fault_at: int

    def limits(self, limits: EngineLimits) -> EngineLimits:
        """The model's, as far as the course leaves them."""
        return replace(
            limits,
            num_blocks=self.num_blocks,
            max_batch_tokens=self.max_batch_tokens,
            max_prefill_tokens=self.max_prefill_tokens,
        )


COURSES = st.builds(
    Course,
    num_blocks=st.sampled_from([4, 6, 24]),
    max_batch_tokens=st.sampled_from([6, 17, 64]),
    max_prefill_tokens=st.sampled_from([5, 64]),
    gap=st.integers(0, 3),
    cut=st.sampled_from([0, 0, 3]),
    fault_at=st.sampled_from([0, 0, 3, 9]),
)


class Faulty:
    """The model's runner, of which one step fails after it has written."""

    def __init__(self, loaded: LoadedModel, fault_at: int) -> None:
        self._runner = loaded.runner
        self._fault_at = fault_at
        self._num_steps = 0
        self.num_ahead = loaded.runner.num_ahead
        self.launch, self.clear, self.reset = loaded.runner.launch, loaded.runner.clear, loaded.runner.reset

    def collect(self) -> StepOutput:
        """What the model sampled, if this is not a step that fails."""
        output = self._runner.collect()
        self._num_steps += 1
        if self._num_steps == self._fault_at:
            raise RuntimeError("this step fails")
        return output


def mixed(loaded: LoadedModel, requests: list[SequenceRequest], course: Course) -> dict[str, list[SequenceOutput]]:
    """Outputs of all requests, run together."""
    engine = Engine(Faulty(loaded, course.fault_at), loaded.text, course.limits(loaded.limits))
    outputs: dict[str, list[SequenceOutput]] = {one.sequence_id: [] for one in requests}
    waiting = list(requests)
    while waiting or engine.has_work:
        if waiting:
            engine.add(waiting.pop(0))
        for _ in range(course.gap if waiting else 1):
            for output in engine.step():
                outputs[output.sequence_id].append(output)
            invariants.check(engine)
    return outputs


@pytest.fixture(scope="module")
def second(tiny_folder: Path, limits: LoadLimits) -> LoadedModel:
    """The same model once more, as another worker has it."""
    return load(str(tiny_folder), device="cpu", limits=limits)


@pytest.fixture(scope="module")
def rounded(tiny_folder: Path, library: Library) -> LoadedModel:
    """The model in bfloat16 on the native kernels, whose rows do not depend on their neighbours in any type."""
    return load(str(tiny_folder), device="cpu", dtype="bfloat16", limits=LIMITS)


@pytest.fixture(scope="module", autouse=True)
def _silence() -> Iterator[None]:
    """A traceback for each failed step takes longer than the steps."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


def choices(picked: list[SequenceRequest], num_choices: int) -> list[SequenceRequest]:
    """Each request so many times over, with seeds of their own, as the choices of one job are."""
    return [
        msgspec.structs.replace(
            one,
            sequence_id=f"{index}/{choice}",
            sampling=msgspec.structs.replace(one.sampling, seed=one.sampling.seed + choice),
        )
        for index, one in enumerate(picked)
        for choice in range(num_choices)
    ]


def check_mix(loaded: LoadedModel, other: LoadedModel, requests: list[SequenceRequest], course: Course) -> None:
    """Assert that each request gets on the other model what it gets alone on the first one."""
    alone = {}
    for one in requests:
        engine = Engine(loaded.runner, loaded.text, loaded.limits)
        alone[one.sequence_id] = run(engine, one)[one.sequence_id]
    emitted = {name: tuple(ids_of(got)[: min(course.cut, len(got) - 1)]) for name, got in alone.items()}

    resumed = [msgspec.structs.replace(one, emitted=emitted[one.sequence_id]) for one in requests]
    outputs = mixed(other, resumed, course)

    for name, got in outputs.items():
        rest = alone[name][len(emitted[name]) :]
        assert ids_of(got) == ids_of(rest)
        assert text_of(got) == text_of(rest)
        assert got[-1].finish == rest[-1].finish
        assert [len(output.logprobs) for output in got] == [len(output.logprobs) for output in rest]
        if not emitted[name]:
            assert [one.token_id for one in got[0].prompt_logprobs] == [one.token_id for one in rest[0].prompt_logprobs]


MIX = {
    "picked": st.lists(REQUESTS, min_size=2, max_size=6),
    "num_choices": st.sampled_from([1, 1, 3]),
    "course": COURSES,
}
OFTEN = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@OFTEN
@given(**MIX)
def test_every_request_of_a_mix_gets_what_it_gets_alone(
    tiny: LoadedModel, second: LoadedModel, picked: list[SequenceRequest], num_choices: int, course: Course
) -> None:
    check_mix(tiny, second, choices(picked, num_choices), course)


@OFTEN
@given(**MIX)
def test_so_it_does_in_bfloat16_on_the_native_kernels(
    rounded: LoadedModel, picked: list[SequenceRequest], num_choices: int, course: Course
) -> None:
    check_mix(rounded, rounded, choices(picked, num_choices), course)
