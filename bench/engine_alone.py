"""What `bench.engine` measures of the engine itself."""

import itertools
import random
import time
from dataclasses import dataclass

from bench.stream_client import percentile
from storage.contract import SamplingParams
from workers.engine.engine import Engine
from workers.engine.runner import Chunk, StepOutput
from workers.engine.sequence import SequenceRequest
from workers.model.load import LoadedModel

_names = itertools.count()
_LONG_PROMPT = 3900


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A prompt and how many tokens are to follow."""

    prompt: tuple[int, ...]
    max_tokens: int


class TimedRunner:
    """A runner that adds up the time spent in it."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._runner = loaded.runner
        self.num_ahead = loaded.runner.num_ahead
        self.spent_s = 0.0

    def launch(self, chunks: list[Chunk]) -> None:
        """As the runner, timed."""
        began = time.perf_counter()
        self._runner.launch(chunks)
        self.spent_s += time.perf_counter() - began

    def collect(self) -> StepOutput:
        """As the runner, timed."""
        began = time.perf_counter()
        output = self._runner.collect()
        self.spent_s += time.perf_counter() - began
        return output

    def clear(self, blocks: list[int]) -> None:
        """As the runner."""
        self._runner.clear(blocks)

    def reset(self) -> None:
        """As the runner."""
        self._runner.reset()


def open_engine(loaded: LoadedModel) -> Engine:
    """An engine that knows nothing yet; earlier ones of the same model are not used any more."""
    return Engine(loaded.runner, loaded.text, loaded.limits)


def add(engine: Engine, job: Job) -> str:
    """Add it under a fresh name."""
    name = str(next(_names))
    sampling = SamplingParams(max_tokens=job.max_tokens, temperature=0.0, ignore_eos=True)
    engine.add(SequenceRequest(sequence_id=name, prompt=job.prompt, sampling=sampling))
    return name


def run(engine: Engine) -> int:
    """Step to the end; tokens that came out."""
    num_tokens = 0
    while engine.has_work:
        num_tokens += sum(len(output.token_ids) for output in engine.step())
    return num_tokens


def rate(loaded: LoadedModel, jobs: list[Job]) -> float:
    """Output tokens a second, from `add` to the last token."""
    engine = open_engine(loaded)
    started = time.perf_counter()
    for job in jobs:
        add(engine, job)
    return run(engine) / (time.perf_counter() - started)


def prefix_times(loaded: LoadedModel, rounds: int = 5) -> tuple[float, float]:
    """Best time to the first token behind a prefix of 512 tokens, seconds: cold, and warm."""
    numbers = random.Random(7)
    engine = open_engine(loaded)
    cold: list[float] = []
    warm: list[float] = []
    for _ in range(rounds):
        prefix = _ids(numbers, 512)
        for times in (cold, warm):
            started = time.perf_counter()
            add(engine, Job(prompt=prefix + _ids(numbers, 16), max_tokens=1))
            run(engine)
            times.append(time.perf_counter() - started)
    return min(cold), min(warm)


def gaps_beside_long_prompt(loaded: LoadedModel) -> tuple[float, float]:
    """p99 of the time between tokens of 16 streams, seconds: undisturbed, and while a long prompt is read."""
    numbers, p99 = random.Random(8), []
    for num_long in (0, 1):
        engine = open_engine(loaded)
        for _ in range(16):
            add(engine, Job(prompt=_ids(numbers, 64), max_tokens=128))
        # All have begun: the first tokens of a prompt are no gap between tokens.
        while engine.num_waiting or engine.stats().num_output_tokens < 16:
            engine.step()
        long = [add(engine, Job(prompt=_ids(numbers, _LONG_PROMPT), max_tokens=1)) for _ in range(num_long)]
        p99.append(percentile(_step_times(engine, long), 0.99))
    return p99[0], p99[1]


def _step_times(engine: Engine, long: list[str]) -> list[float]:
    """Seconds of each step while the streams run and, if there is a long prompt, until it is read."""
    times = []
    while engine.num_running >= 16:
        began = time.perf_counter()
        outputs = engine.step()
        times.append(time.perf_counter() - began)
        if any(output.sequence_id in long for output in outputs):
            break
    run(engine)
    return times


def share_outside_runner(loaded: LoadedModel, jobs: list[Job]) -> float:
    """Share of the loop's time that is not spent in the runner."""
    runner = TimedRunner(loaded)
    engine = Engine(runner, loaded.text, loaded.limits)
    for job in jobs:
        add(engine, job)
    started = time.perf_counter()
    run(engine)
    return 1 - runner.spent_s / (time.perf_counter() - started)


def _ids(numbers: random.Random, num_tokens: int) -> tuple[int, ...]:
    return tuple(numbers.randrange(300, 16000) for _ in range(num_tokens))
