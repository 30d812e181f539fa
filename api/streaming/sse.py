"""A job's stream as server-sent events: ready bytes, everything that waits in one write, `[DONE]` last.

Whoever brings entries writes them: the stream's own task only waits for the client's end. A task that is woken for each
token costs more than the token.
"""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api.errors import JOB_ID, envelope_of
from api.protocol.answer.fold import Fold
from api.protocol.shared.frames import DONE, HEARTBEAT, frame
from api.streaming.eager_start import run_eagerly
from api.streaming.subscription import Subscription
from api.streaming.subscription_states import SubscriptionState
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
        self._error: BaseException | None = None
        # The write that the client keeps waiting.
        self._writing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[None] | None
        self._send: Send

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._loop, self._task, self._send = asyncio.get_running_loop(), asyncio.current_task(), send
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            self._subscription.listener = self._go_on
            self._write([*self._new(self._fold.open()), self._notes()])
            self._go_on()
            # The client's end, or ours: a server says so too when the last of the body was sent.
            while (await receive())["type"] != "http.disconnect":
                pass
        except asyncio.CancelledError:
            if self._error is not None:
                raise self._error from None
            await self._part()
        finally:
            self._subscription.listener = None
            self._release(self._subscription)
            if self._writing is not None:
                self._writing.cancel()
        # Whoever is cut off because this server goes down has not left.
        if not (self._is_over or self._subscription.state is SubscriptionState.FAILED) and self._on_leave is not None:
            await self._on_leave()

    async def _part(self) -> None:
        # The server goes down, which is not the client leaving: the job runs on, another process can replay it.
        if not self._is_over:
            self._is_over = True
            end = ShuttingDown("This server is going down. The job runs on; ask for its stream again.")
            await self._send(_body(frame(envelope_of(end)) + DONE, is_last=True))

    def _go_on(self) -> None:
        """Write what came, unless the client still takes what was written before."""
        if self._writing is not None or self._is_over or not self._subscription.has_news:
            return
        try:
            self._step()
        except Exception as error:  # noqa: BLE001 - the stream's exception boundary: the relay task writes to other streams too
            self._break(error)

    def _step(self) -> None:
        try:
            entries = self._subscription.read()
        except PlatformError as error:
            self._finish(frame(envelope_of(error)) + DONE)
            return
        feed = self._fold.feed
        frames = self._new([one for entry in entries for one in feed(entry)])
        if self._fold.is_ended:
            self._finish(b"".join(frames) + DONE)
            return
        self._write(frames if entries else [self._notes() or HEARTBEAT])
        if self._subscription.has_news:
            self._loop.call_soon(self._go_on)  # others get a turn between

    def _new(self, frames: list[bytes]) -> list[bytes]:
        """Those frames that the client does not have."""
        if self._skip:
            num_skipped = min(self._skip, len(frames))
            self._skip -= num_skipped
            return frames[num_skipped:]
        return frames

    def _write(self, frames: list[bytes]) -> None:
        if body := b"".join(frames):
            self._subscription.spoken_at = self._loop.time()
            self._put(_body(body, is_last=False))

    def _finish(self, rest: bytes) -> None:
        self._is_over = True
        self._put(_body(rest, is_last=True))

    def _put(self, message: Message) -> None:
        self._writing = run_eagerly(self._send(message))
        if self._writing is not None:
            self._writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Task[None]) -> None:
        self._writing = None
        if writing.cancelled():
            return
        error = writing.exception()
        if error is None:
            self._go_on()
        else:
            self._break(error)

    def _break(self, error: BaseException) -> None:
        """End the stream's own task with the error."""
        self._error = error
        assert self._task is not None
        self._task.cancel()


def _body(body: bytes, *, is_last: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": not is_last}
