"""Verdicts on constraints, and their cache, which is limited in bytes."""

from collections import OrderedDict
from hashlib import blake2b

import msgspec

from api.protocol.structured.constraints import Constraint, Judged

# What one entry takes besides its texts.
_ENTRY_BYTES = 400


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The judgment of a constraint, or the reason of its refusal; one of the two is set."""

    judged: Judged | None = None
    reason: str | None = None

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return _ENTRY_BYTES + len(self.reason or "") + (0 if self.judged is None else len(self.judged.part.encode()))


def digest_of(project: str, constraint: Constraint) -> bytes:
    """What a verdict depends on. A project has its own, since the time of an answer tells whether there is one."""
    digest = blake2b(f"{project}\0{constraint.kind}\0{constraint.is_strict}\0".encode(), digest_size=16)
    digest.update(constraint.text.encode())
    return digest.digest()


class VerdictCache:
    """Verdicts by digest; the least recently used ones make room."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()

    @property
    def size_bytes(self) -> int:
        """About how much memory all entries take."""
        return self._size_bytes

    def find(self, digest: bytes) -> Verdict | None:
        """The verdict, None where there is none."""
        verdict = self._verdicts.get(digest)
        if verdict is not None:
            self._verdicts.move_to_end(digest)
        return verdict

    def add(self, digest: bytes, verdict: Verdict) -> None:
        """Keep a verdict."""
        replaced = self._verdicts.pop(digest, None)
        self._size_bytes += verdict.size_bytes - (0 if replaced is None else replaced.size_bytes)
        self._verdicts[digest] = verdict
        while self._size_bytes > self._max_bytes:
            _, dropped = self._verdicts.popitem(last=False)
            self._size_bytes -= dropped.size_bytes
