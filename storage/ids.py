"""Public ids: a prefix that names the kind, then time and randomness, so that rows inserted together lie together."""

import re
import secrets
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


def suffix_of(public_id: str) -> str:
    """The part after the prefix; ids derived from a job (its message item) share it."""
    return public_id.replace("-", "_").rpartition("_")[2]


def _suffix() -> str:
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
