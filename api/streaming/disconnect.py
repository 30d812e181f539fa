"""Noticing that a client has gone while its answer is still being made."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.types import Receive


@asynccontextmanager
async def watched(receive: Receive, on_gone: Callable[[], None]) -> AsyncIterator[None]:
    """The block, during which `on_gone` is called once if the client closes its connection.

    The request's body must have been read: what comes next can only be the end.
    """
    watching = asyncio.create_task(_watch(receive, on_gone), name="client-watch")
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(receive: Receive, on_gone: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    on_gone()
