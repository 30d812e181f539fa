"""TCP ports for servers that tests start as processes of their own."""

import itertools
import os
import socket

# Below the ports that Linux gives to clients and to whoever binds port 0, so that neither takes one of these first.
_FIRST, _COUNT = 10_000, 20_000
_numbers = itertools.count(os.getpid() * 97)


def free_port() -> int:
    """A port that nobody listens on, and that this process was not given before."""
    while True:
        port = _FIRST + next(_numbers) % _COUNT
        with socket.socket() as probe:
            # As a server does it: a port of connections that only wait to be forgotten is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
