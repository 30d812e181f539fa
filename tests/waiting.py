"""Waiting without sleeping blindly: poll a condition until a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
# Between two checks; a twentieth of what was waited so far, so that long waits leave the processor to others.
_MIN_PAUSE_S, _MAX_PAUSE_S = 0.01, 0.2


def _pause_after(waited_s: float) -> float:
    return min(max(_MIN_PAUSE_S, waited_s / 20), _MAX_PAUSE_S)


def wait_until(predicate: Callable[[], T], timeout_s: float = 20.0, what: str = "the condition") -> T:
    """The first true value of `predicate`; AssertionError when the deadline passes before."""
    began = time.monotonic()
    while not (value := predicate()):
        waited_s = time.monotonic() - began
        assert waited_s < timeout_s, f"{what} did not come true within {timeout_s} s"
        time.sleep(_pause_after(waited_s))
    return value


async def wait_until_async(
    predicate: Callable[[], T | Awaitable[T]], timeout_s: float = 20.0, what: str = "the condition"
) -> T:
    """As `wait_until`, on an event loop; `predicate` may be a coroutine function."""
    began = time.monotonic()
    while True:
        value = predicate()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        waited_s = time.monotonic() - began
        assert waited_s < timeout_s, f"{what} did not come true within {timeout_s} s"
        await asyncio.sleep(_pause_after(waited_s))
