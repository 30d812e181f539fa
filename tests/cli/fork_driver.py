"""A fork server whose processes run the Python code of their second argument: `python -m tests.cli.fork_driver FD`."""

import socket
import sys

from workers import fork_server


def _run() -> None:
    exec(sys.argv[1], {})


if __name__ == "__main__":
    fork_server.serve(socket.socket(fileno=int(sys.argv[1])), _run)
