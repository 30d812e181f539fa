"""Running the API in this process, on uvicorn."""

import socket
from collections.abc import Mapping

import uvicorn

from api.cli.settings import export
from api.cli.up import listen

# A stream may be silent for 15 s; a proxy in front keeps its connections longer than uvicorn's 5 s.
_KEEP_ALIVE_S = 75


def serve_api(
    variables: Mapping[str, str], *, host: str, port: int, listener: int | None, drain_grace_s: float
) -> None:
    """Serve until SIGTERM or Ctrl-C; open streams may end within the grace.

    variables: settings that the rooms read from the environment
    listener:  descriptor of an inherited listening socket, in place of host and port
    """
    export(variables)
    with listen(host, port) if listener is None else socket.socket(fileno=listener) as sock:
        config = uvicorn.Config(
            "api.app:create_app",
            factory=True,
            loop="uvloop",
            # httptools takes one header of 64 MB and blocks on it; h11 refuses.
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=round(drain_grace_s),
        )
        uvicorn.Server(config).run(sockets=[sock])
