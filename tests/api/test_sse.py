"""A stream as an ASGI application: what it sends, without a server."""

import asyncio
from collections.abc import Iterator

import pytest
from starlette.types import Message

from api.protocol.chat.fold import ChatFold
from api.protocol.kinds import fold_of
from api.protocol.shared.frames import HEARTBEAT
from api.streaming.sse import EventStream
from api.streaming.subscription import Subscription
from storage.contract import JobHeader, JobKind, LogEntry
from tests.protocol.examples import end, event, start, tokens
from tests.waiting import wait_until_async

HEADER = JobHeader(
    job_id="chatcmpl-1", kind=JobKind.CHAT, model="demo", created_at=1, request={"model": "demo"}, context={}
)


class _Client:
    """Takes what a stream sends while `takes` is set; hears it end, as a server tells it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self._is_over = asyncio.Event()

    async def receive(self) -> Message:
        await self._is_over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if not self.takes.is_set():
            await self.takes.wait()
        self.bodies.append(message.get("body", b""))
        if message.get("more_body") is False:
            self._is_over.set()


async def test_notes_are_sent_at_the_beginning_and_when_there_is_nothing_else() -> None:
    subscription, client, notes = Subscription("chatcmpl-1"), _Client(), _notes()
    stream = EventStream(fold_of(HEADER), subscription, release=lambda _: None, notes=lambda: next(notes))

    running = asyncio.create_task(stream({"type": "http"}, client.receive, client.send))
    for num_bodies in (2, 3, 4):
        await wait_until_async(lambda count=num_bodies: len(client.bodies) == count)
        subscription.wake()
    await wait_until_async(lambda: len(client.bodies) == 5)
    for entry in (start(), tokens(1, event("a")), end(2)):
        subscription.offer(entry)
    subscription.notify()
    await running

    assert client.bodies[1:5] == [b": first\n", b": second\n", b": third\n", HEARTBEAT]
    assert client.bodies[-1].endswith(b"data: [DONE]\n\n")


def _notes() -> Iterator[bytes]:
    yield from (b": first\n", b": second\n", b": third\n", b"")


async def test_what_came_while_a_client_was_slow_is_one_write() -> None:
    subscription, client = Subscription("chatcmpl-1"), _Client()
    stream = EventStream(fold_of(HEADER), subscription, release=lambda _: None)
    running = asyncio.create_task(stream({"type": "http"}, client.receive, client.send))
    await wait_until_async(lambda: subscription.listener is not None)

    client.takes.clear()
    for entry in (start(), *(tokens(seq, event(str(seq))) for seq in range(1, 6)), end(6)):
        subscription.offer(entry)
        subscription.notify()
    client.takes.set()
    await running

    _, first, rest = client.bodies
    assert (first.count(b"data: "), b'"content":"1"' in first) == (2, True)
    assert rest.count(b'"content"') == 4
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_a_stream_that_breaks_takes_nobody_with_it() -> None:
    class Broken(ChatFold):
        def feed(self, entry: LogEntry) -> list[bytes]:
            raise LookupError

    released: list[Subscription] = []
    subscription, client = Subscription("chatcmpl-1"), _Client()
    stream = EventStream(Broken(HEADER), subscription, release=released.append)
    running = asyncio.create_task(stream({"type": "http"}, client.receive, client.send))
    await wait_until_async(lambda: subscription.listener is not None)

    subscription.offer(start())
    subscription.notify()

    with pytest.raises(LookupError):
        await running
    assert released == [subscription]
