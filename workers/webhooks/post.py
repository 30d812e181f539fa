"""One POST: to where the guard allows, no redirects, no proxies, an answer cut in length and time."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from datetime import datetime
from urllib.parse import urlsplit

import httpcore2

from storage.errors import WebhookUrlRefused
from storage.network.resolver import Resolver
from storage.network.url_policy import Policy, Resolve, host_of, judge
from storage.webhooks.delivery_queue import Sending
from workers.webhooks.guard import JudgedBackend
from workers.webhooks.payload import body_of, headers_of
from workers.webhooks.retry_schedule import retry_after_s
from workers.webhooks.verdict import Answer

# From the question for the host's address to the last byte that is read.
TIMEOUT_S = 15.0
MAX_ANSWER_BYTES = 64 * 1024
KEPT_BYTES = 2048
_MAX_ERROR_CHARACTERS = 500
# A question for a name may take longer than the post that asked: more than posts under way.
_MAX_RESOLVERS = 256

Post = Callable[[Sending, Policy, datetime], Awaitable[Answer]]


class Poster:
    """Posts deliveries; every one on a connection of its own."""

    def __init__(
        self, context: ssl.SSLContext, *, resolve: Resolve | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        """resolve: asks the system where it is None."""
        self._context = context
        self._resolve = resolve or Resolver(_MAX_RESOLVERS).resolve
        self._timeout_s = timeout_s

    async def post(self, sending: Sending, policy: Policy, now: datetime) -> Answer:
        """What came of it; a failure is an answer, too. An answer that has begun counts, also if its rest is cut."""
        heard = _Heard()
        error = None
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._exchange(sending, policy, now, heard)
        except (TimeoutError, httpcore2.TimeoutException):
            error = f"No answer came within {self._timeout_s:g} s."
        except WebhookUrlRefused as refused:
            error = refused.message
        except (httpcore2.NetworkError, httpcore2.ProtocolError, ssl.SSLError) as trouble:
            error = f"The connection failed: {_why(trouble)}"[:_MAX_ERROR_CHARACTERS]
        return heard.answer(error, now)

    async def _exchange(self, sending: Sending, policy: Policy, now: datetime, heard: "_Heard") -> None:
        target = judge(sending.url, policy)
        parts = urlsplit(sending.url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        body = body_of(sending)
        # Built from what was judged: no second parser has a say in where it goes.
        url = httpcore2.URL(scheme=target.scheme, host=target.host, port=target.port, target=path)
        headers = headers_of(sending, body, host_of(sending.url), int(now.timestamp()))
        pool = httpcore2.AsyncConnectionPool(
            ssl_context=self._context, network_backend=JudgedBackend(target, policy, self._resolve)
        )
        async with pool, pool.stream("POST", url, headers=headers, content=body) as response:
            heard.status_code = response.status
            heard.headers = {name.lower(): value for name, value in response.headers}
            async for part in response.aiter_stream():
                heard.body += part[: MAX_ANSWER_BYTES - len(heard.body)]
                if len(heard.body) >= MAX_ANSWER_BYTES:
                    return


def _why(trouble: Exception) -> str:
    """What the trouble says; anyio's words for a host that takes no connection are for programmers."""
    if str(trouble) == "All connection attempts failed":
        return "nobody answers there."
    return str(trouble) or type(trouble).__name__


class _Heard:
    """What has come so far."""

    def __init__(self) -> None:
        self.status_code: int | None = None
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    def answer(self, error: str | None, now: datetime) -> Answer:
        if self.status_code is None:
            return Answer(error=error)
        wish = self.headers.get(b"retry-after")
        return Answer(
            status_code=self.status_code,
            retry_after_s=None if wish is None else retry_after_s(wish.decode("latin-1"), now),
            # PostgreSQL keeps no NUL in a text.
            text=self.body[:KEPT_BYTES].decode("utf-8", "replace").replace("\0", "\ufffd"),
        )
