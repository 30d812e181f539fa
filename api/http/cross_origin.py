"""Cross-origin requests (CORS): which browser pages may call, and which headers answer their browsers.

Source: the Fetch standard, section "HTTP-CORS protocol". No cookies are involved, so credentials are not allowed.
"""

import re

from starlette.responses import Response

from api.errors import JOB_ID

Headers = list[tuple[bytes, bytes]]

_ALLOWED_METHODS = "GET, POST, DELETE"
_MAX_AGE_S = 600
_EXPOSED = ", ".join(
    (
        "x-request-id",
        JOB_ID,
        "tokenpost-unenforced",
        "location",
        "retry-after",
        "retry-after-ms",
        "openai-processing-ms",
        "openai-poll-after-ms",
        "idempotent-replayed",
        "preference-applied",
        "deprecation",
        "sunset",
    )
).encode()
_GOOD_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{0,2000}")
GOOD_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class AllowedOrigins:
    """The origins that an operator has named; empty means that CORS is off."""

    def __init__(self, origins: frozenset[str]) -> None:
        self._origins = frozenset(origin.encode("ascii") for origin in origins)

    def allows(self, origin: bytes) -> bool:
        """Whether the request comes from a page of a named origin."""
        return origin in self._origins

    def headers_of(self, origin: bytes) -> Headers:
        """What every response to a page of a named origin says."""
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"origin"),
        ]


def preflight_response(requested_headers: bytes | None) -> Response:
    """The answer to a browser that asks whether it may send a request."""
    names = (requested_headers or b"").decode("latin-1")
    allowed = names if _GOOD_NAMES.fullmatch(names) else ""
    headers = {
        "access-control-allow-methods": _ALLOWED_METHODS,
        "access-control-allow-headers": allowed,
        "access-control-max-age": str(_MAX_AGE_S),
    }
    return Response(status_code=204, headers=headers)
