"""A job's stream as server-sent events: ready bytes, everything that waits in one write, `[DONE]` last."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.disconnect import watched
from api.errors import JOB_ID, envelope_of
from api.protocol.folds import Fold
from api.protocol.frames import DONE, HEARTBEAT, frame
from api.subscription import Subscription
from storage.errors import PlatformError, ShuttingDown

_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
OnLeave = Callable[[], Awaitable[None]]
Notes = Callable[[], bytes]


class EventStream(Response):
    """The frames of a fold over a subscription; the client may leave at any moment."""

    media_type = "text/event-stream"

    def __init__(
        self,
        fold: Fold,
        subscription: Subscription,
        *,
        release: Callable[[Subscription], None],
        on_leave: OnLeave | None = None,
        skip: int = 0,
        notes: Notes | None = None,
    ) -> None:
        """release:  called with the subscription when the stream is over
        on_leave: awaited when the client goes before the end; None where that changes nothing
        skip:     how many frames the client has already
        notes:    SSE comments to send at the beginning and whenever the stream is woken without entries; may be empty
        """
        # Not Response.__init__, which would announce an empty body.
        self.status_code = 200
        self.background = None
        self.init_headers({**_HEADERS, JOB_ID: subscription.job_id})
        self._fold = fold
        self._subscription = subscription
        self._release = release
        self._on_leave = on_leave
        self._skip = skip
        self._notes: Notes = notes or bytes
        self._is_over = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with watched(receive, self._subscription.close):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await self._run(send)
        finally:
            self._release(self._subscription)
        # Whoever is cut off because this server goes down has not left.
        if not (self._is_over or self._subscription.is_failed) and self._on_leave is not None:
            await self._on_leave()

    async def _run(self, send: Send) -> None:
        try:
            await self._write(send, [*self._new(self._fold.open()), self._notes()])
            while not self._fold.is_ended and not self._subscription.is_closed:
                await self._step(send)
        except PlatformError as error:
            await self._finish(send, frame(envelope_of(error)) + DONE)
        except asyncio.CancelledError:
            # The server goes down, which is not the client leaving: the job runs on, another process can replay it.
            end = ShuttingDown("This server is going down. The job runs on; ask for its stream again.")
            await self._finish(send, frame(envelope_of(end)) + DONE)

    async def _step(self, send: Send) -> None:
        entries = await self._subscription.next()
        feed = self._fold.feed
        frames = self._new([one for entry in entries for one in feed(entry)])
        if self._fold.is_ended:
            await self._finish(send, b"".join(frames) + DONE)
        elif frames:
            await self._write(send, frames)
        elif not entries and not self._subscription.is_closed:
            await self._write(send, [self._notes() or HEARTBEAT])

    def _new(self, frames: list[bytes]) -> list[bytes]:
        """Those frames that the client does not have."""
        if self._skip:
            num_skipped = min(self._skip, len(frames))
            self._skip -= num_skipped
            return frames[num_skipped:]
        return frames

    async def _write(self, send: Send, frames: list[bytes]) -> None:
        if body := b"".join(frames):
            self._subscription.spoken_at = asyncio.get_running_loop().time()
            await send({"type": "http.response.body", "body": body, "more_body": True})

    async def _finish(self, send: Send, rest: bytes) -> None:
        self._is_over = True
        await send({"type": "http.response.body", "body": rest, "more_body": False})
