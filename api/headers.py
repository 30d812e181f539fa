"""Lookup in raw request headers: most requests need only two of them, so no mapping is built."""

import re
from functools import lru_cache

from starlette.types import Scope

from storage.errors import InvalidRequest

# RFC 9110, 7.2: a registered name, an IPv4 or a bracketed IPv6 address, and maybe a port.
_GOOD_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


def header_of(scope: Scope, name: bytes) -> bytes | None:
    """The value of the first header of that name, which is lower case; None when absent."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def refuse_bad_host(scope: Scope, host: bytes | None) -> None:
    """Raise InvalidRequest unless there is exactly one `Host` header and it is a host; HTTP/1.0 needs none."""
    if host is None and scope["http_version"] == "1.0":
        return
    if sum(name == b"host" for name, _ in scope["headers"]) != 1:
        raise InvalidRequest("The request must have exactly one 'Host' header.")
    if not _is_host(host or b""):
        raise InvalidRequest("The 'Host' header is not a host name or address with an optional port.")


@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    return _GOOD_HOST.fullmatch(value) is not None
