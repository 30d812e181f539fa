"""SSRF guard: a network backend that connects to checked addresses only."""

from collections.abc import Iterable

import httpcore2

from storage.network.url_policy import Policy, Resolve, Target, resolve_and_judge

# An address that drops packets must leave time for the next one.
CONNECT_TIMEOUT_S = 5.0


class JudgedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to a target's host: resolves it once, checks each address, and connects to those addresses only.

    TLS still verifies the certificate against the host name.
    """

    def __init__(self, target: Target, policy: Policy, resolve: Resolve) -> None:
        self._target = target
        self._policy = policy
        self._resolve = resolve
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A stream to the first address that answers; WebhookUrlRefused, or httpcore's errors."""
        assert (host, port) == (self._target.host, self._target.port), "connections go to the checked target only"
        addresses = await resolve_and_judge(self._target, self._policy, self._resolve)
        *others, last = addresses
        for address in others:
            try:
                return await self._network.connect_tcp(address, port, CONNECT_TIMEOUT_S)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await self._network.connect_tcp(last, port, CONNECT_TIMEOUT_S)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Refused: no receiver is a Unix socket."""
        raise NotImplementedError
