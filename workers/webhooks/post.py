"""The HTTP client of webhooks: one POST through the SSRF guard, without redirects, with size and time limits."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from datetime import datetime
from urllib.parse import urlsplit

import httpcore2

from storage.network.errors import WebhookUrlRefused
from storage.network.resolver import Resolver
from storage.network.url_policy import Policy, Resolve, host_of, judge
from storage.webhooks.delivery_queue import Sending
from workers.webhooks.guard import JudgedBackend
from workers.webhooks.payload import body_of, headers_of
from workers.webhooks.retry_schedule import retry_after_s
from workers.webhooks.verdict import Answer

# From the DNS lookup to the last byte that is read.
TIMEOUT_S = 15.0
MAX_ANSWER_BYTES = 64 * 1024
KEPT_BYTES = 2048
_MAX_ERROR_CHARACTERS = 500
# A DNS lookup may outlive the post that started it, so the limit is above that of posts in flight.
_MAX_RESOLVERS = 256

Post = Callable[[Sending, Policy, datetime], Awaitable[Answer]]


class Poster:
    """Posts deliveries, each on a new connection."""

    def __init__(
        self, context: ssl.SSLContext, *, resolve: Resolve | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        """resolve: asks the system where it is None."""
        self._context = context
        self._resolve = resolve or Resolver(_MAX_RESOLVERS).resolve
        self._timeout_s = timeout_s

    async def post(self, sending: Sending, policy: Policy, now: datetime) -> Answer:
        """The outcome of one attempt; errors are returned as an Answer. A response counts once its status has come."""
        received = _Received()
        error = None
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._exchange(sending, policy, now, received)
        except (TimeoutError, httpcore2.TimeoutException):
            error = f"No answer came within {self._timeout_s:g} s."
        except WebhookUrlRefused as refused:
            error = refused.message
        except (httpcore2.NetworkError, httpcore2.ProtocolError, ssl.SSLError) as failure:
            error = f"The connection failed: {_reason(failure)}"[:_MAX_ERROR_CHARACTERS]
        return received.answer(error, now)

    async def _exchange(self, sending: Sending, policy: Policy, now: datetime, received: "_Received") -> None:
        target = judge(sending.url, policy)
        parts = urlsplit(sending.url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        body = body_of(sending)
        # Built from the checked parts, so that no second URL parser decides where the request goes.
        url = httpcore2.URL(scheme=target.scheme, host=target.host, port=target.port, target=path)
        headers = headers_of(sending, body, host_of(sending.url), int(now.timestamp()))
        pool = httpcore2.AsyncConnectionPool(
            ssl_context=self._context, network_backend=JudgedBackend(target, policy, self._resolve)
        )
        async with pool, pool.stream("POST", url, headers=headers, content=body) as response:
            received.status_code = response.status
            received.headers = {name.lower(): value for name, value in response.headers}
            async for part in response.aiter_stream():
                received.body += part[: MAX_ANSWER_BYTES - len(received.body)]
                if len(received.body) >= MAX_ANSWER_BYTES:
                    return


def _reason(failure: Exception) -> str:
    """The error message; anyio's message for a refused connection is replaced by a plain one."""
    if str(failure) == "All connection attempts failed":
        return "no server accepts connections there."
    return str(failure) or type(failure).__name__


class _Received:
    """The part of the response that was received so far."""

    def __init__(self) -> None:
        self.status_code: int | None = None
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    def answer(self, error: str | None, now: datetime) -> Answer:
        if self.status_code is None:
            return Answer(error=error)
        retry_after = self.headers.get(b"retry-after")
        return Answer(
            status_code=self.status_code,
            retry_after_s=None if retry_after is None else retry_after_s(retry_after.decode("latin-1"), now),
            # PostgreSQL stores no NUL in a text.
            text=self.body[:KEPT_BYTES].decode("utf-8", "replace").replace("\0", "\ufffd"),
        )
