"""The only way out: a connection to an address that was judged, whatever the name means a moment later."""

from collections.abc import Iterable

import httpcore2

from storage.network.url_policy import Policy, Resolve, Target, resolve_and_judge

# One address that swallows packets must leave time for the next.
CONNECT_TIMEOUT_S = 5.0


class JudgedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to a target's host: asks for its addresses once, judges each, and uses those very addresses.

    TLS still asks for the certificate of the name: that is the business of who speaks on the connection.
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
        assert (host, port) == (self._target.host, self._target.port), "only what was judged is connected to"
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
        """Never: no receiver is a file."""
        raise NotImplementedError
