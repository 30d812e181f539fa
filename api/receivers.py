"""Whether a webhook may be sent to a URL, judged when a caller names it; whoever sends judges again."""

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from storage.errors import WebhookUrlRefused
from storage.webhook_url import Policy, Resolve, judge, resolve_and_judge

# Threads of its own: a name server that hangs must not keep others of the event loop's threads.
_NUM_THREADS = 4
_PATIENCE_S = 2.0

log = structlog.get_logger()


class Receivers:
    """Judges URLs by the policy of this moment."""

    def __init__(self, policy: Callable[[], Policy], resolve: Resolve | None = None) -> None:
        """resolve: asks the system where it is None"""
        self._policy = policy
        self._resolve = resolve or self._ask_system
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="resolver")

    def close(self) -> None:
        """Judge no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def judge(self, url: str, *, param: str) -> None:
        """Return if the URL may be told something; WebhookUrlRefused with `param` if not.

        A name that no server answers for at this moment passes: it is judged when something is sent.
        """
        policy = self._policy()
        try:
            target = judge(url, policy)
            async with asyncio.timeout(_PATIENCE_S):
                await resolve_and_judge(target, policy, self._resolve)
        except WebhookUrlRefused as error:
            if isinstance(error.__cause__, socket.gaierror) and error.__cause__.errno == socket.EAI_AGAIN:
                log.info("receiver_unresolved", host=target.host)
                return
            raise WebhookUrlRefused(error.message, param=param) from error
        except TimeoutError:
            log.info("receiver_unresolved", host=target.host)

    async def _ask_system(self, host: str, port: int) -> list[str]:
        def ask() -> list[str]:
            return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]

        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)
