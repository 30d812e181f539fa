"""The API's listening socket."""

import errno
import socket

from storage.errors import PlatformError

# The largest unsent data in the kernel for a slow reader; the rest waits in the API, where it is counted.
_MAX_UNSENT_BYTES = 128 * 1024


class AddressUnusable(PlatformError):
    """Listening on the address is impossible, or not allowed without an API key."""

    code = "address_unusable"


def listen(host: str, port: int) -> socket.socket:
    """A bound, listening socket; AddressUnusable says why there is none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=host == "::")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressUnusable(f"port {port} on {host} is in use; choose another with --port") from error
        raise AddressUnusable(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        # Accepted connections inherit the option.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MAX_UNSENT_BYTES)
    return listener
