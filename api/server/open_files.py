"""Limit of open files: raised to the hard limit at the entry point, and shared between clients and the platform."""

import contextlib
import resource

# Descriptors that are kept from clients: database, Redis, log files, and connections that are being refused.
RESERVED_FILES = 256
_MIN_CONNECTIONS = 16


def raise_open_files_limit() -> None:
    """Raise the soft limit of open files to the hard one; its usual 1,024 are fewer than a server has clients."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems have a lower limit of their own
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def num_connections_within(max_connections: int) -> int:
    """How many connections this process may have, given its setting and its limit of open files."""
    max_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if max_files == resource.RLIM_INFINITY:
        return max_connections
    return max(_MIN_CONNECTIONS, min(max_connections, max_files - RESERVED_FILES))
