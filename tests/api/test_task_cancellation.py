"""Tasks that are cancelled."""

import asyncio

from api.task_cancellation import end


async def test_a_task_that_swallows_its_cancellation_ends_all_the_same() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if swallowed == 2:
                    raise
                swallowed += 1

    async def broken() -> None:
        raise RuntimeError("nobody hears it")

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(broken())]
    await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await end(*tasks)

    assert swallowed == 2
    assert all(task.done() for task in tasks)
    await end()
