"""Public ids: a prefix that names the kind, then time and randomness, so that rows inserted together lie together."""

import secrets
import time

from storage.contract import JobKind

_PREFIX = {JobKind.RESPONSE: "resp_", JobKind.CHAT: "chatcmpl-", JobKind.COMPLETION: "cmpl-"}


def new_job_id(kind: JobKind) -> str:
    """A fresh id: prefix, 12 hex digits of milliseconds, 20 hex digits (80 bits) of randomness."""
    return _PREFIX[kind] + _suffix()


def new_id(prefix: str) -> str:
    """A fresh id of another noun: `req_`, `key_`, ..."""
    return prefix + _suffix()


def suffix_of(public_id: str) -> str:
    """The part after the prefix; ids derived from a job (its message item) share it."""
    return public_id.replace("-", "_").rpartition("_")[2]


def _suffix() -> str:
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
