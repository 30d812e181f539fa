"""Progress of a model's start: how many tensors are converted or loaded, of all."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class Phase(StrEnum):
    """What is done with the tensors."""

    CONVERTING = "converting"
    LOADING = "loading"


# Called with the number of tensors done, and of all.
Report = Callable[[Phase, int, int], None]


def counted(read: Callable[[str], T], total: int, report: Report) -> Callable[[str], T]:
    """The same function, which reports each name that it is called with for the first time."""
    done: set[str] = set()

    def counting(name: str) -> T:
        if name not in done:
            done.add(name)
            report(Phase.LOADING, len(done), total)
        return read(name)

    return counting


def write_to(path: Path | None) -> Report:
    """A report that writes `PHASE DONE TOTAL` into a file, which the supervisor shows; None reports nowhere."""

    def report(phase: Phase, done: int, total: int) -> None:
        if path is not None:
            path.write_text(f"{phase} {done} {total}", encoding="ascii")

    return report
