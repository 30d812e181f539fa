"""Server-sent events: ready bytes from a fold to the socket, as few writes as the client's pace allows.

Source of the format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.errors import error_response
from api.protocol.folds import Fold
from api.protocol.frames import DONE, HEARTBEAT
from api.relay import Subscription
from storage.errors import PlatformError

HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class EventStream(Response):
    """A job's stream: its fold over its log, without the first `skip` frames, then `[DONE]`."""

    media_type = "text/event-stream"

    def __init__(
        self,
        subscription: Subscription,
        fold: Fold,
        *,
        skip: int,
        heartbeat_s: float,
        on_leave: Callable[[], None],
    ) -> None:
        """on_leave: called when the reader goes before the end"""
        super().__init__(headers=HEADERS | {"x-job-id": subscription.job_id})
        del self.headers["content-length"]
        self._subscription = subscription
        self._fold = fold
        self._skip = skip
        self._heartbeat_s = heartbeat_s
        self._on_leave = on_leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream until it ends, or the reader leaves."""
        pump = asyncio.create_task(self._pump(send))
        reader = asyncio.create_task(until_disconnect(receive))
        try:
            await asyncio.wait([pump, reader], return_when=asyncio.FIRST_COMPLETED)
            has_left = not pump.done()
        finally:
            for task in (pump, reader):
                task.cancel()
            outcomes = await asyncio.gather(pump, reader, return_exceptions=True)
            self._subscription.close()
        if has_left or isinstance(outcomes[0], OSError):
            self._on_leave()
        elif isinstance(outcomes[0], Exception):
            raise outcomes[0]

    async def _pump(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            await self._relay(send)
        except PlatformError as error:
            # Not an end of the job: whoever reads on gets the rest from the job itself.
            await send({"type": "http.response.body", "body": _error_frame(error), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _relay(self, send: Send) -> None:
        frames = self._fold.open()
        while True:
            frames = self._left_of(frames)
            if self._fold.is_ended:
                frames.append(DONE)
            if frames:
                await send({"type": "http.response.body", "body": b"".join(frames), "more_body": True})
            if self._fold.is_ended:
                return
            frames = await self._next_frames(send)

    async def _next_frames(self, send: Send) -> list[bytes]:
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    entries = await self._subscription.read()
            except TimeoutError:
                await send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
                continue
            return [frame for entry in entries for frame in self._fold.feed(entry)]

    def _left_of(self, frames: list[bytes]) -> list[bytes]:
        """`frames` without those that the reader already has."""
        if not self._skip:
            return frames
        num_skipped = min(self._skip, len(frames))
        self._skip -= num_skipped
        return frames[num_skipped:]


async def until_disconnect(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _error_frame(error: PlatformError) -> bytes:
    return b"data: %b\n\n" % bytes(error_response(error).body)
