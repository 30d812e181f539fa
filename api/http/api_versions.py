"""API versions: which one a request asks for, and what is deprecated.

Source: RFC 9745 (`Deprecation`), RFC 8594 (`Sunset`).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import parse_qsl

import msgspec

from storage.errors import InvalidRequest

QUERY_NAME = "api-version"
HEADER_NAME = b"x-api-version"
# The name of the version in paths, and the day of its publication.
VERSIONS = ("v1", "2026-12-01")
# Where the dispatcher leaves a deprecated route's headers in the state of a request.
DEPRECATION_STATE = "deprecation_headers"

Headers = list[tuple[bytes, bytes]]


class Deprecation(msgspec.Struct, frozen=True, kw_only=True):
    """A route that will go.

    since:  moment from which its use is discouraged
    sunset: moment from which it may be gone; None while that is open
    link:   address of a page that says what to use instead
    """

    since: datetime
    sunset: datetime | None = None
    link: str | None = None

    def headers(self) -> Headers:
        """What every response of the route says."""
        found = [(b"deprecation", b"@%d" % self.since.timestamp())]
        if self.sunset is not None:
            found.append((b"sunset", format_datetime(self.sunset.astimezone(UTC), usegmt=True).encode()))
        if self.link is not None:
            found.append((b"link", f'<{self.link}>; rel="deprecation"'.encode("ascii")))
        return found


# By method and path as the route declares it, such as ("GET", "/v1/completions/{completion_id}"). Nothing goes so far.
DEPRECATIONS: Mapping[tuple[str, str], Deprecation] = {}


def refuse_unknown_version(header: bytes | None, query_string: bytes) -> None:
    """Raise InvalidRequest for a request that asks, by header or query, for a version that does not exist."""
    if header is not None:
        _refuse(header.decode("latin-1"), "X-API-Version")
    if b"version" in query_string:
        for name, value in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True):
            if name == QUERY_NAME:
                _refuse(value, QUERY_NAME)


def _refuse(version: str, param: str) -> None:
    if version not in VERSIONS:
        raise InvalidRequest(
            f"Unknown API version '{version[:50]}'. There is one version: 'v1', also called '2026-12-01'.", param=param
        )
