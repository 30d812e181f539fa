"""A stream as an ASGI application: what it sends, without a server."""

import asyncio
from collections.abc import Iterator

from starlette.types import Message

from api.protocol.folds import fold_of
from api.protocol.frames import HEARTBEAT
from api.sse import EventStream
from api.subscription import Subscription
from storage.contract import JobHeader, JobKind
from tests.protocol.examples import end, event, start, tokens
from tests.waiting import wait_until_async

HEADER = JobHeader(
    job_id="chatcmpl-1", kind=JobKind.CHAT, model="demo", created_at=1, request={"model": "demo"}, context={}
)


async def _silence() -> Message:
    """What a client says that only listens."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError


async def test_notes_are_told_at_the_beginning_and_when_there_is_nothing_else() -> None:
    subscription, bodies, notes = Subscription("chatcmpl-1"), list[bytes](), _notes()
    stream = EventStream(fold_of(HEADER), subscription, release=lambda _: None, notes=lambda: next(notes))

    async def send(message: Message) -> None:
        bodies.append(message.get("body", b""))

    running = asyncio.create_task(stream({"type": "http"}, _silence, send))
    for num_bodies in (2, 3, 4):
        await wait_until_async(lambda count=num_bodies: len(bodies) == count)
        subscription.wake()
    await wait_until_async(lambda: len(bodies) == 5)
    for entry in (start(), tokens(1, event("a")), end(2)):
        subscription.offer(entry)
    await running

    assert bodies[1:5] == [b": first\n\n", b": second\n\n", b": third\n\n", HEARTBEAT]
    assert bodies[-1].endswith(b"data: [DONE]\n\n")


def _notes() -> Iterator[bytes]:
    yield from (b": first\n\n", b": second\n\n", b": third\n\n", b"")
