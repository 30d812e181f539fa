"""Ports of the generation pipeline: the components that its stages use."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from storage.broker.event_log import Tail
from storage.contract import JobHeader
from storage.database.group_commit import Writer
from storage.embedding_job import AnySpec
from workers.constraint.grammars import Grammars
from workers.engine.stepped_engine import SteppedEngine
from workers.generation.pipeline.job_generation import Generation
from workers.generation.pipeline.logprob_bytes import TokenBytes
from workers.publishing.publisher import Publisher


class EnginePort(Protocol):
    """The engine's thread; see `workers.generation.engine_thread.EngineThread`."""

    def put(self, work: Callable[[SteppedEngine], None]) -> None:
        """Hand over work; it runs between two steps, in order."""

    def new_job(self, job_id: str) -> Generation:
        """A job of the kind that the loaded model runs."""

    @property
    def token_bytes(self) -> TokenBytes:
        """The bytes of the loaded model's tokens."""

    @property
    def grammars(self) -> Grammars:
        """Compiled grammars for the loaded model's tokens, for the grammar thread alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The components that the pipeline's stages use.

    writer:        the database
    on_event_loop: runs a call on the event loop's thread; tickets are answered only there
    later:         runs a call after a pause, for what failed because the database is away
    tails:         where each job's log ends
    drop_log:      deletes an erased job's log; may raise RedisError
    on_grammar_thread: runs a call on the one thread that compiles grammars
    read_header:   reads what the folds need of a job, and calls back with it; with None for an erased job
    read_spec:     reads a large spec, which its claim left out, and calls back with it; with None for an erased job
    """

    writer: Writer
    engine: EnginePort
    publisher: Publisher
    on_event_loop: Callable[[Callable[[], None]], None]
    later: Callable[[Callable[[], None]], None]
    tails: Callable[[list[str]], dict[str, Tail | None]]
    drop_log: Callable[[str], None]
    on_grammar_thread: Callable[[Callable[[], None]], object]
    read_header: Callable[[str, Callable[[JobHeader | None], None]], None]
    read_spec: Callable[[str, Callable[[AnySpec | None], None]], None]
