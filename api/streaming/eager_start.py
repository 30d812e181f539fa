"""Running at once what mostly has nothing to wait for: no task is made, and no turn of the loop passes."""

import asyncio
import types
from collections.abc import Awaitable, Generator
from typing import Any

# Any: what an awaitable yields to its loop is between those two.
Steps = Generator[Any, Any, None]


def run_eagerly(work: Awaitable[None]) -> asyncio.Task[None] | None:
    """Run `work` up to where it first waits; the rest of it as a task, None when there is no rest.

    Raises what `work` raises before it waits. From Python 3.12 on tasks can begin so by themselves.
    """
    steps = work.__await__()
    try:
        awaited = steps.send(None)
    except StopIteration:
        return None
    return asyncio.ensure_future(_rest(steps, awaited))


@types.coroutine
def _rest(steps: Steps, awaited: Any) -> Steps:
    """The steps behind the first, which yielded `awaited`."""
    while True:
        try:
            sent = yield awaited
        except BaseException as error:  # noqa: BLE001 - cancellation, for whom it is meant
            sent = error
        try:
            awaited = steps.throw(sent) if isinstance(sent, BaseException) else steps.send(sent)
        except StopIteration:
            return
