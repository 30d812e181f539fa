"""The engine stage: puts sequences into the engine and takes them out. On the engine's thread.

Grammars are compiled before that on a thread of their own, so that a slow one delays no other job's tokens.
"""

from collections.abc import Callable, Iterable
from functools import partial

import structlog
from llguidance import LLMatcher

from storage.contract import Failure
from storage.errors import PlatformError
from workers.constraint.grammars import GrammarUnusable
from workers.engine.sequence import SequenceOutput
from workers.engine.stepped_engine import SteppedEngine
from workers.generation.pipeline.job_generation import Generation, Phase
from workers.generation.pipeline.live_jobs import LiveJobs
from workers.generation.pipeline.ports import Ports
from workers.generation.pipeline.stages import Stages

log = structlog.get_logger()


class EngineFeed:
    """Adds and cancels the sequences of jobs."""

    def __init__(self, ports: Ports, stages: Stages, live: LiveJobs) -> None:
        self._ports = ports
        self._stages = stages
        self._live = live

    def enter(self, generation: Generation) -> None:
        """As `EngineStage`."""
        generation.phase = Phase.RUNNING
        if generation.grammar is None:
            self._ports.engine.put(partial(self._enter, generation, lambda: None))
        else:
            self._ports.on_grammar_thread(partial(self._compile, generation, generation.grammar))

    def quit(self, generation: Generation) -> None:
        """As `EngineStage`."""
        self._ports.engine.put(partial(self._quit, generation))

    def cancel(self, sequence_ids: Iterable[str]) -> None:
        """As `EngineStage`."""
        self._ports.engine.put(partial(_cancel, sequence_ids))

    def on_step(self, outputs: list[SequenceOutput]) -> None:
        """Pass on what one step yielded."""
        self._stages.log.publish(outputs)

    def _compile(self, generation: Generation, grammar: str) -> None:
        """Compile the job's grammar, on the grammar thread, before the job enters the engine."""
        try:
            matchers = [self._ports.engine.grammars.matcher(grammar) for _ in range(generation.spec.total_choices)]
        except GrammarUnusable as error:
            self._stages.log.fail(generation, Failure(code="grammar_dead_end", message=str(error)))
        except Exception as error:  # a fault in one job's grammar is that job's alone
            log.exception("grammar_fault", job_id=generation.job_id)
            self._stages.log.fail(generation, _fault_of(error))
        else:
            self._ports.engine.put(partial(self._enter, generation, matchers.pop))

    def _enter(
        self, generation: Generation, new_matcher: Callable[[], LLMatcher | None], engine: SteppedEngine
    ) -> None:
        if generation.stop is not None:
            self._quit(generation, engine)
            return
        try:
            for choice, request in generation.engine_requests(new_matcher):
                self._live.choices[generation.sequence_id(choice)] = (generation, choice)
                engine.add(request)
        except PlatformError as error:
            self._stages.log.fail(generation, Failure(code=error.code, message=error.message))
        except Exception as error:  # a fault in one job's request is that job's alone
            log.exception("engine_refused", job_id=generation.job_id)
            self._stages.log.fail(generation, _fault_of(error))

    def _quit(self, generation: Generation, engine: SteppedEngine) -> None:
        # Before RUNNING it is not in the engine yet; `_enter` will see its stop.
        if generation.phase is Phase.RUNNING:
            _cancel(generation.sequence_ids(), engine)
            self._stages.log.close_stopped(generation)


def _fault_of(error: Exception) -> Failure:
    return Failure(code="engine_fault", message=f"The engine failed: {type(error).__name__}")


def _cancel(sequence_ids: Iterable[str], engine: SteppedEngine) -> None:
    for sequence_id in sequence_ids:
        engine.cancel(sequence_id)
