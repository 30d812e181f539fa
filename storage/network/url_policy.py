"""URL policy of webhooks (SSRF protection): which URLs may receive events.

This machine connects to the URL that a caller names, so the URL must not lead into the platform's own network. A URL
is checked when it is named, and again when something is sent. Then its host is resolved once, every address is checked,
and the connection uses a checked address. A name whose address changes afterwards (DNS rebinding) therefore gains
nothing.

Source of the networks: IANA's registries of special-purpose addresses (RFC 6890), as of 2026.
"""

import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import SplitResult, urlsplit

import msgspec

from storage.network.errors import WebhookUrlRefused

MAX_URL_LENGTH = 2048
_PORTS = {"https": 443, "http": 80}
# Neither what `urlsplit` silently removes (tabs, line ends) nor what parsers disagree about.
_URL_CHARACTERS = re.compile(r"[!-\[\]-~]+", re.ASCII)
_HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?", re.ASCII)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
# The addresses of a host name and port; OSError when it has none.
Resolve = Callable[[str, int], Awaitable[list[str]]]

_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        # A public address behind which a cloud's machines find their metadata.
        "168.63.129.16/32",
        # Teredo, ORCHID and others that are no receivers; documentation; 6to4, which hides an IPv4 address.
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    )
)
_UNICAST_V6 = IPv6Network("2000::/3")
# IPv6-only networks reach IPv4 receivers by these addresses; the embedded IPv4 address is checked.
_NAT64 = IPv6Network("64:ff9b::/96")


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Receivers that an operator allows beyond public https ones.

    allowed:         host names, addresses and networks of internal receivers: any port, http as well
    allows_http:     whether public receivers may be reached over http
    allows_loopback: whether this machine is an internal receiver
    """

    allowed: tuple[str, ...] = ()
    allows_http: bool = False
    allows_loopback: bool = False

    def trusts_host(self, host: str) -> bool:
        """Whether the name itself is on the list; `*.example.internal` is every name below."""
        return any(host == one or (one.startswith("*.") and host.endswith(one[1:])) for one in self.allowed)

    def trusts_address(self, address: Address) -> bool:
        """Whether the address is in one of the list's networks, or this machine's own where that is allowed."""
        if self.allows_loopback and address.is_loopback:
            return True
        return any(address.version == one.version and address in one for one in self._networks())

    @property
    def trusts_anybody(self) -> bool:
        """Whether there can be an internal receiver at all."""
        return self.allows_loopback or bool(self.allowed)

    def _networks(self) -> Iterable[Network]:
        return (network for network in map(_network_of, self.allowed) if network is not None)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """The parsed destination of a URL.

    host:        in lower case, without a last dot; an IPv6 address without brackets
    needs_trust: whether scheme or port is one that only internal receivers may have
    """

    scheme: str
    host: str
    port: int
    needs_trust: bool


def is_allow_entry(text: str) -> bool:
    """Whether an operator's list may hold this: a host name, `*.` and a host name, an address or a network."""
    return _network_of(text) is not None or (_HOST_NAME.fullmatch(text.removeprefix("*.")) is not None)


def host_of(url: str) -> str:
    """The host of a checked URL, with its port if it has one."""
    return urlsplit(url).netloc.lower()


def judge(url: str, policy: Policy) -> Target:
    """The parsed URL; WebhookUrlRefused for what can be refused without resolving the host."""
    parts = _split(url)
    host = (parts.hostname or "").removesuffix(".")
    try:
        port = _PORTS[parts.scheme] if parts.port is None else parts.port
    except ValueError as error:
        raise _refused("the port is no number of a port") from error
    is_plain = port == _PORTS[parts.scheme] and (parts.scheme == "https" or policy.allows_http)
    target = Target(scheme=parts.scheme, host=host, port=port, needs_trust=not is_plain)
    address = _address_of(host)
    if address is not None:
        judge_address(target, address, policy)
    elif _HOST_NAME.fullmatch(host) is None or "[" in parts.netloc:
        raise _refused("the host is neither a name in ASCII nor an address")
    elif target.needs_trust and not policy.trusts_anybody:
        raise _refused(_NEEDS_TRUST)
    return target


def judge_address(target: Target, address: Address, policy: Policy) -> None:
    """Return if this address of the target's host is allowed; else WebhookUrlRefused."""
    inner = _within(address)
    if policy.trusts_host(target.host) or policy.trusts_address(address) or policy.trusts_address(inner):
        return
    if not _is_public(inner):
        raise _refused(_not_public(target))
    if target.needs_trust:
        raise _refused(_NEEDS_TRUST)


async def resolve_and_judge(target: Target, policy: Policy, resolve: Resolve) -> list[str]:
    """The addresses of the target's host, all of them allowed; WebhookUrlRefused where one is not, or there is none."""
    try:
        texts = await resolve(target.host, target.port)
    except (OSError, UnicodeError) as error:
        raise _refused(f"{target.host} has no address") from error
    addresses = [_address_of(text) for text in texts]
    for address in addresses:
        if address is None:
            raise _refused(_not_public(target))
        judge_address(target, address, policy)
    if not texts:
        raise _refused(f"{target.host} has no address")
    return texts


def _split(url: str) -> SplitResult:
    if len(url) > MAX_URL_LENGTH:
        raise _refused(f"it is longer than {MAX_URL_LENGTH} characters")
    if _URL_CHARACTERS.fullmatch(url) is None:
        raise _refused("it holds characters that a URL must escape")
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname)
    except ValueError as error:
        raise _refused(str(error)) from error
    if parts.scheme not in _PORTS or not has_host:
        raise _refused("it is not of the form https://host/path")
    if "@" in parts.netloc:
        raise _refused("it holds a user name or password")
    return parts


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _UNICAST_V6:
        return False
    return not any(address.version == network.version and address in network for network in _NOT_PUBLIC)


def _within(address: Address) -> Address:
    """The IPv4 address embedded in an IPv6 address, else the address itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _address_of(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _network_of(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def _refused(reason: str) -> WebhookUrlRefused:
    return WebhookUrlRefused(f"No webhook can be sent to this URL: {reason}.", param="url")


def _not_public(target: Target) -> str:
    # The address itself is not shown: names of this network must not be resolvable from outside.
    return f"{target.host} leads to no public address"


_NEEDS_TRUST = "only https on port 443 is open to public receivers, unless this server's settings allow more"
