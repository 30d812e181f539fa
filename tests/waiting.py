"""Waiting without sleeping blindly: poll a condition until a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
_PAUSE_S = 0.01


def wait_until(predicate: Callable[[], T], timeout_s: float = 20.0, what: str = "the condition") -> T:
    """The first true value of `predicate`; AssertionError when the deadline passes before."""
    deadline = time.monotonic() + timeout_s
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout_s} s"
        time.sleep(_PAUSE_S)
    return value


async def wait_until_async(
    predicate: Callable[[], T | Awaitable[T]], timeout_s: float = 20.0, what: str = "the condition"
) -> T:
    """As `wait_until`, on an event loop; `predicate` may be a coroutine function."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout_s} s"
        await asyncio.sleep(_PAUSE_S)
