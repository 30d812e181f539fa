"""What the threads of a worker ask of an engine, whatever it computes: text or vectors."""

from typing import Any, Protocol

from workers.engine.sequence import SequenceOutput
from workers.engine.stats import EngineStats


class SteppedEngine(Protocol):
    """An engine that is stepped for as long as it has work; one thread owns it."""

    @property
    def has_work(self) -> bool:
        """Whether a step would do or yield something."""

    @property
    def num_steps(self) -> int:
        """Steps whose computation was done."""

    def add(self, request: Any) -> None:  # each engine has its own kind of request, which its jobs make
        """Take a sequence in; raises PlatformError for one that can never run."""

    def cancel(self, sequence_id: str) -> None:
        """Drop a sequence at once, without further output."""

    def step(self) -> list[SequenceOutput]:
        """Compute one batch."""

    def stats(self) -> EngineStats:
        """What it holds now, and what it has done."""
