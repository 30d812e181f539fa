"""Webhook URL check: a URL is judged when a caller names it, and again before each delivery."""

import asyncio
import socket
import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec
import structlog

from storage.network.errors import WebhookUrlRefused
from storage.network.resolver import Resolver
from storage.network.url_policy import Policy, Resolve, Target, judge, resolve_and_judge

# Name servers that hang keep a thread for half a minute. A caller with slow names gets few of the threads.
_MAX_THREADS = 32
_MAX_LOOKUPS_PER_OWNER = 4
_TIMEOUT_S = 2.0
_VERDICT_S = 60.0
# A name without an answer is passed, and tried again after this time.
_UNRESOLVED_S = 10.0
_MAX_VERDICTS = 10_000

log = structlog.get_logger()


class _Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was found about a host; `refusal` is None where webhooks may be sent, or its addresses are unknown."""

    refusal: str | None
    expires_at: float


_Key = tuple[Target, Policy]


class WebhookUrlCheck:
    """Judges webhook URLs by the current policy, with a cache of verdicts on hosts."""

    def __init__(
        self,
        policy: Callable[[], Policy],
        resolve: Resolve | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """resolve: the system's resolver where it is None
        clock:   monotonic seconds
        """
        self._policy = policy
        self._clock = clock
        self._resolver = Resolver(_MAX_THREADS)
        self._resolve = resolve or self._resolver.resolve
        self._verdicts: OrderedDict[_Key, _Verdict] = OrderedDict()
        self._lookups: dict[_Key, asyncio.Task[_Verdict]] = {}
        self._num_lookups: dict[str, int] = {}

    async def judge(self, url: str, *, param: str, owner: str = "") -> None:
        """Return if webhooks may be sent to the URL; WebhookUrlRefused with `param` if not.

        A name whose addresses cannot be found in time passes: it is judged again before delivery.

        owner: who names the URL; the lookups of one owner are bounded, so that they never delay another's
        """
        policy = self._policy()
        try:
            target = judge(url, policy)
        except WebhookUrlRefused as error:
            raise WebhookUrlRefused(error.message, param=param) from error
        verdict = await self._verdict_of((target, policy), owner)
        if verdict is not None and verdict.refusal is not None:
            raise WebhookUrlRefused(verdict.refusal, param=param)

    async def _verdict_of(self, key: _Key, owner: str) -> _Verdict | None:
        """The verdict on a host; None where it is not known in time."""
        cached = self._verdicts.get(key)
        if cached is not None and self._clock() < cached.expires_at:
            return cached
        lookup = self._lookups.get(key) or self._begin(key, owner)
        if lookup is None:
            return None
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                # The lookup goes on without this caller: its thread cannot be stopped.
                return await asyncio.shield(lookup)
        except TimeoutError:
            self._remember(key, self._unresolved(key))
            return None

    def _begin(self, key: _Key, owner: str) -> "asyncio.Task[_Verdict] | None":
        """A lookup in a thread; None where no thread is free, or none for this owner."""
        num_lookups = self._num_lookups.get(owner, 0)
        if num_lookups >= _MAX_LOOKUPS_PER_OWNER or self._resolver.is_full:
            log.info("webhook_lookup_skipped", host=key[0].host, num_lookups=num_lookups)
            return None
        self._num_lookups[owner] = num_lookups + 1
        lookup = self._lookups[key] = asyncio.create_task(self._look_up(key), name="webhook-host")
        lookup.add_done_callback(lambda done: self._end(key, owner, done))
        return lookup

    def _end(self, key: _Key, owner: str, done: "asyncio.Task[_Verdict]") -> None:
        del self._lookups[key]
        self._num_lookups[owner] -= 1
        if not self._num_lookups[owner]:
            del self._num_lookups[owner]
        if not done.cancelled() and done.exception() is None:
            self._remember(key, done.result())

    async def _look_up(self, key: _Key) -> _Verdict:
        target, policy = key
        refusal: str | None = None
        try:
            await resolve_and_judge(target, policy, self._resolve)
        except WebhookUrlRefused as error:
            if isinstance(error.__cause__, socket.gaierror) and error.__cause__.errno == socket.EAI_AGAIN:
                return self._unresolved(key)
            refusal = error.message
        return _Verdict(refusal=refusal, expires_at=self._clock() + _VERDICT_S)

    def _unresolved(self, key: _Key) -> _Verdict:
        log.info("webhook_host_unresolved", host=key[0].host)
        return _Verdict(refusal=None, expires_at=self._clock() + _UNRESOLVED_S)

    def _remember(self, key: _Key, verdict: _Verdict) -> None:
        self._verdicts[key] = verdict
        self._verdicts.move_to_end(key)
        if len(self._verdicts) > _MAX_VERDICTS:
            self._verdicts.popitem(last=False)
