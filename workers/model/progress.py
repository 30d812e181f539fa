"""Progress of loading weights: how many tensors have been read, of all."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

# Called with the number of tensors done, and of all.
Report = Callable[[int, int], None]
T = TypeVar("T")


def counted(read: Callable[[str], T], total: int, report: Report) -> Callable[[str], T]:
    """The same function, which reports each name that it is called with for the first time."""
    done: set[str] = set()

    def counting(name: str) -> T:
        if name not in done:
            done.add(name)
            report(len(done), total)
        return read(name)

    return counting


def write_to(path: Path | None) -> Report:
    """A report that writes `DONE TOTAL` into a file, which the supervisor shows; None reports nowhere."""

    def report(done: int, total: int) -> None:
        if path is not None:
            path.write_text(f"{done} {total}", encoding="ascii")

    return report
