"""Ending the tasks that run beside the requests."""

import asyncio

# A cancellation that was swallowed is repeated after this time.
_AGAIN_S = 0.1


async def end(*tasks: asyncio.Task[None]) -> None:
    """Return when the tasks have ended, cancelled as often as that takes.

    redis-py sends through `asyncio.wait_for`, which in Python 3.11 swallows a cancellation that comes in the moment in
    which its work is done (bpo-37658); a loop goes on then as if nobody had asked it to end.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)
