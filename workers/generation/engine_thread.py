"""The engine thread: loads the model and steps it.

Load and step share one thread because two threads with OpenMP pools halve the speed of each other.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from storage.model_manifest import ModelManifest
from storage.process.thread_timeslice import take_long_turns
from workers.constraint.grammars import Grammars
from workers.engine.sequence import SequenceOutput
from workers.engine.stepped_engine import SteppedEngine
from workers.generation.engine_snapshot import EngineWatch
from workers.generation.pipeline.job_generation import Generation
from workers.generation.pipeline.logprob_bytes import TokenBytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTools:
    """What jobs of a model that writes text need beside its engine.

    token_bytes: the bytes of its tokens
    grammars:    compiles grammars for them
    """

    token_bytes: TokenBytes
    grammars: Grammars


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An engine that is ready to run.

    text:          None of a model that writes no text
    new_job:       a job of the kind that it runs, by its id
    device, dtype: as worker rows show them
    """

    engine: SteppedEngine
    manifest: ModelManifest
    text: TextTools | None
    device: str
    dtype: str
    new_job: Callable[[str], Generation] = Generation


Work = Callable[[SteppedEngine], None]
OnStep = Callable[[list[SequenceOutput]], None]


class EngineThread:
    """Runs work on the engine and steps it for as long as it has sequences."""

    def __init__(self, load: Callable[[], Loaded], on_fatal: Callable[[BaseException], None]) -> None:
        self.loaded: Future[Loaded] = Future()
        self.watch = EngineWatch()
        self._load = load
        self._on_fatal = on_fatal
        self._on_step: OnStep
        self._inbox: deque[Work] = deque()
        self._wake = threading.Condition()
        self._is_stopping = False
        self._is_resting = True
        self._num_moves = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self, on_step: OnStep) -> None:
        """Load the model, then run; `loaded` then holds the engine, or the error.

        on_step: takes what one step yielded, on the engine's thread
        """
        self._on_step = on_step
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End after the current step; sequences that still run are dropped."""
        with self._wake:
            self._is_stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def put(self, work: Work) -> None:
        """Hand over work; it runs between two steps, in order."""
        self._inbox.append(work)
        with self._wake:
            self._wake.notify()

    def new_job(self, job_id: str) -> Generation:
        """A job of the kind that the loaded model runs; waits while it loads."""
        return self.loaded.result().new_job(job_id)

    @property
    def token_bytes(self) -> TokenBytes:
        """The bytes of the loaded model's tokens; waits while it loads."""
        return self._text.token_bytes

    @property
    def grammars(self) -> Grammars:
        """Compiled grammars for the loaded model's tokens; waits while it loads."""
        return self._text.grammars

    @property
    def _text(self) -> TextTools:
        text = self.loaded.result().text
        assert text is not None, "only jobs that write text ask for it"
        return text

    @property
    def pulse(self) -> int | None:
        """A counter that moves with every piece of work and every step that computes; None while nothing is to do."""
        return None if self._is_resting else self._num_moves

    def _run(self) -> None:
        take_long_turns()
        try:
            loaded = self._load()
        except BaseException as error:  # noqa: BLE001 - exception boundary of the thread: the caller of `start` decides what follows
            self.loaded.set_exception(error)
            return
        self.loaded.set_result(loaded)
        try:
            while self._turn(loaded.engine):
                pass
        except BaseException as error:  # noqa: BLE001 - exception boundary of the thread: a worker cannot go on without its engine
            self._on_fatal(error)

    def _turn(self, engine: SteppedEngine) -> bool:
        """Do the work that waits, then one step; False when the thread is to end."""
        if not self._inbox and not engine.has_work:
            self.watch.settle(engine)
            with self._wake:
                self._is_resting = True
                self._wake.wait_for(lambda: self._inbox or self._is_stopping)
        self._is_resting = False
        while self._inbox:
            self._inbox.popleft()(engine)
            self._num_moves += 1
        if self._is_stopping:
            return False
        if engine.has_work:
            # A fault of one sequence or one step stays inside the engine; what escapes means that it is broken.
            num_steps = engine.num_steps
            outputs = engine.step()
            if outputs:
                self._on_step(outputs)
            if outputs or engine.num_steps != num_steps:
                self._num_moves += 1
            self.watch.observe(engine)
        return True
