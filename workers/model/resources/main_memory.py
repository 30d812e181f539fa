"""Main memory of this machine, and how much of it a cache takes; without torch."""

import os
from pathlib import Path

_MAX_CACHE_BYTES = 4 << 30
# Where Linux tells a container what it may take; elsewhere there is no such file.
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def main_memory_bytes() -> int:
    """Main memory of this machine, or of this container where it is given less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CONTAINER_LIMIT.read_text().strip() if _CONTAINER_LIMIT.is_file() else "max"
    return min(total, int(limit)) if limit.isdigit() else total


def cpu_cache_budget_bytes() -> int:
    """Memory for keys and values on a CPU when nobody set it: a quarter of main memory, at most 4 GiB.

    All of it is taken at start.
    """
    return min(main_memory_bytes() // 4, _MAX_CACHE_BYTES)
