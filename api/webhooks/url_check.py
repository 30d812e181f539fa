"""Whether a webhook may be sent to a URL, judged when a caller names it; whoever sends judges again."""

import asyncio
import socket
from collections.abc import Callable

import structlog

from storage.errors import WebhookUrlRefused
from storage.network.resolver import Resolver
from storage.network.url_policy import Policy, Resolve, judge, resolve_and_judge

_MAX_THREADS = 4
_TIMEOUT_S = 2.0

log = structlog.get_logger()


class Receivers:
    """Judges URLs by the policy of this moment."""

    def __init__(self, policy: Callable[[], Policy], resolve: Resolve | None = None) -> None:
        """resolve: asks the system where it is None"""
        self._policy = policy
        self._resolve = resolve or Resolver(_MAX_THREADS).resolve

    async def judge(self, url: str, *, param: str) -> None:
        """Return if the URL may receive events; WebhookUrlRefused with `param` if not.

        A name that no server answers for at this moment passes: it is judged when something is sent.
        """
        policy = self._policy()
        try:
            target = judge(url, policy)
            async with asyncio.timeout(_TIMEOUT_S):
                await resolve_and_judge(target, policy, self._resolve)
        except WebhookUrlRefused as error:
            if isinstance(error.__cause__, socket.gaierror) and error.__cause__.errno == socket.EAI_AGAIN:
                log.info("receiver_unresolved", host=target.host)
                return
            raise WebhookUrlRefused(error.message, param=param) from error
        except TimeoutError:
            log.info("receiver_unresolved", host=target.host)
