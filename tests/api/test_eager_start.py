"""Work that runs at once as far as it can."""

import asyncio

import pytest

from api.streaming.eager_start import run_eagerly


async def test_work_that_waits_for_nothing_is_done_at_once() -> None:
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    assert run_eagerly(work()) is None
    assert done == [1]


async def test_the_rest_of_work_that_waits_is_a_task() -> None:
    gate, steps = asyncio.Event(), list[int]()

    async def work() -> None:
        steps.append(1)
        await gate.wait()
        steps.append(2)
        await asyncio.sleep(0)
        steps.append(3)

    rest = run_eagerly(work())
    assert rest is not None
    assert steps == [1]
    gate.set()
    await rest
    assert steps == [1, 2, 3]


async def test_errors_come_where_they_happen() -> None:
    async def work(*, waits: bool) -> None:
        if waits:
            await asyncio.sleep(0)
        raise LookupError

    with pytest.raises(LookupError):
        run_eagerly(work(waits=False))
    rest = run_eagerly(work(waits=True))
    assert rest is not None
    with pytest.raises(LookupError):
        await rest


async def test_the_rest_can_be_cancelled() -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    rest = run_eagerly(work())
    assert rest is not None
    await asyncio.sleep(0)
    rest.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rest
    assert seen == ["cancelled"]
