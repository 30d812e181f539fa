"""Figures of a run at size: each with what was asked, printed as one table at the end and checked one by one."""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

_CALLS_A_TURN = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table.

    seen:  the ratio, or the value in `unit`
    most:  what it may be at most; None where `least` says what it is at least
    """

    what: str
    seen: float
    most: float | None = None
    least: float | None = None
    unit: str = "times"
    note: str = ""

    @property
    def is_reached(self) -> bool:
        """Whether it is what was asked for."""
        return (self.most is None or self.seen <= self.most) and (self.least is None or self.seen >= self.least)

    @property
    def asked(self) -> str:
        """The bound, for people."""
        return f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"


class Figures:
    """The figures of a run."""

    def __init__(self) -> None:
        self._figures: list[Figure] = []

    def check(self, *figures: Figure) -> None:
        """Keep figures for the table; AssertionError names those that are not reached."""
        self._figures += figures
        missed = [figure for figure in figures if not figure.is_reached]
        assert not missed, "; ".join(f"{one.what}: {one.seen:.2f} {one.unit}, {one.asked} asked" for one in missed)

    def print(self) -> None:
        """The table."""
        table = Table(title="at size")
        for heading in ("what", "asked", "seen", "unit", "note"):
            table.add_column(heading)
        for figure in self._figures:
            seen = f"{figure.seen:.2f}" + ("" if figure.is_reached else " (missed)")
            table.add_row(figure.what, figure.asked, seen, figure.unit, figure.note)
        if self._figures:
            Console(width=160).print(table)


def interleaved_p50_s(
    actions: Sequence[Callable[[int], object]], *, rounds: int, calls: int, warm_up: int = 1
) -> list[float]:
    """The median seconds of each action, called in turns so that a busy machine slows all of them alike.

    actions: called with the number of the call
    """
    times: list[list[float]] = [[] for _ in actions]
    for number in range(-warm_up, rounds):
        for action, seconds in zip(actions, times, strict=True):
            for call in range(calls):
                started = time.perf_counter()
                action((number + warm_up) * calls + call)
                if number >= 0:
                    seconds.append(time.perf_counter() - started)
    return [statistics.median(seconds) for seconds in times]


def disturbed_p50_s(
    action: Callable[[int], object], disturbance: Callable[[], AbstractContextManager[object]], *, rounds: int = 8
) -> tuple[float, float]:
    """The median seconds of an action without and with a disturbance, in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(2 * rounds):
        with disturbance() if number % 2 else nullcontext():
            for call in range(_CALLS_A_TURN):
                started = time.perf_counter()
                action(number * _CALLS_A_TURN + call)
                times[number % 2].append(time.perf_counter() - started)
    return statistics.median(times[0]), statistics.median(times[1])
