"""Lookup in raw request headers: most requests need only two of them, so no mapping is built."""

from starlette.types import Scope


def header_of(scope: Scope, name: bytes) -> bytes | None:
    """The value of the first header of that name, which is lower case; None when absent."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None
