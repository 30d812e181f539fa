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


class _Client:
    """Takes what a stream sends; hears it end, as a server tells it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._is_over = asyncio.Event()

    async def receive(self) -> Message:
        await self._is_over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.bodies.append(message.get("body", b""))
        if message.get("more_body") is False:
            self._is_over.set()


async def test_notes_are_told_at_the_beginning_and_when_there_is_nothing_else() -> None:
    subscription, client, notes = Subscription("chatcmpl-1"), _Client(), _notes()
    stream = EventStream(fold_of(HEADER), subscription, release=lambda _: None, notes=lambda: next(notes))

    running = asyncio.create_task(stream({"type": "http"}, client.receive, client.send))
    for num_bodies in (2, 3, 4):
        await wait_until_async(lambda count=num_bodies: len(client.bodies) == count)
        subscription.wake()
    await wait_until_async(lambda: len(client.bodies) == 5)
    for entry in (start(), tokens(1, event("a")), end(2)):
        subscription.offer(entry)
    subscription.tell()
    await running

    assert client.bodies[1:5] == [b": first\n\n", b": second\n\n", b": third\n\n", HEARTBEAT]
    assert client.bodies[-1].endswith(b"data: [DONE]\n\n")


def _notes() -> Iterator[bytes]:
    yield from (b": first\n\n", b": second\n\n", b": third\n\n", b"")
