"""Public ids: a prefix that names the kind, then time and randomness, so that rows inserted together lie together."""

import os
import re
import threading
import time

from storage.contract import JobKind

_PUBLIC_ID = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)


def new_job_id(kind: JobKind) -> str:
    """A fresh id: prefix, 12 hex digits of milliseconds, 20 hex digits (80 bits) of randomness."""
    return kind.prefix + _suffix()


def new_id(prefix: str) -> str:
    """A fresh id of another noun: `req_`, `key_`, ..."""
    return prefix + _suffix()


def is_public_id(text: str) -> bool:
    """Whether the text can be an id at all; PostgreSQL refuses some texts (NUL) even in a question."""
    return _PUBLIC_ID.fullmatch(text) is not None


def is_id_of(text: str, prefix: str) -> bool:
    """Whether the text can be the id of a noun with that prefix, as a pagination cursor must be."""
    return text.startswith(prefix) and is_public_id(text)


def suffix_of(public_id: str) -> str:
    """The part after the prefix; ids derived from a job (its message item) share it."""
    return public_id.replace("-", "_").rpartition("_")[2]


def _suffix() -> str:
    return f"{time.time_ns() // 1_000_000:012x}{_random.take(10).hex()}"


class _Randomness:
    """Random bytes of the operating system, fetched many at a time.

    Each fetch lets go of the interpreter lock. On an event loop beside busy threads, waiting to get it back took a
    twentieth of the time of an accepted job.
    """

    _FETCHED_BYTES = 4096

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = b""
        self._num_taken = 0
        # A child process must not repeat its parent's ids.
        os.register_at_fork(after_in_child=self._forget)

    def take(self, num_bytes: int) -> bytes:
        """Bytes that were not taken before."""
        with self._lock:
            start, end = self._num_taken, self._num_taken + num_bytes
            if end > len(self._bytes):
                self._bytes, start, end = os.urandom(self._FETCHED_BYTES), 0, num_bytes
            self._num_taken = end
            return self._bytes[start:end]

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._bytes = b""


_random = _Randomness()
