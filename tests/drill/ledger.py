"""What the client writes down while it happens: one line an entry, appended and flushed, so that it outlives everyone.

Times are `time.monotonic()`, which all processes of a machine share.
"""

import time
from enum import StrEnum
from pathlib import Path

import msgspec


class What(StrEnum):
    """The kinds of entries."""

    ASKED = "asked"  # a request to create the job is sent
    ACCEPTED = "accepted"  # it was answered 2xx, with the job's id
    REFUSED = "refused"  # it, or a reading of the job, was answered with another status
    BROKEN = "broken"  # it got no answer: nobody knows whether there is a job
    EVENT = "event"  # one frame of the stream
    CUT = "cut"  # the stream ended before its end
    POLLED = "polled"  # the job's status, when it changed
    ENDED = "ended"  # the client has the whole outcome
    GAVE_UP = "gave_up"  # the client's patience is over
    CLOSED = "closed"  # the client's last word


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened to one job, as the client saw it.

    job:         the client's own name of the job; also its Idempotency-Key and its metadata `drill`
    kind:        how it is asked for, in ASKED
    template:    what is asked, in ASKED: an index into `work.TEMPLATES`
    id:          the platform's id of the job
    status:      the HTTP status
    retry_after: the header
    took_s:      from the request to the head of its answer
    seq:         `sequence_number`, or the count of chunks before this one
    data:        the frame, the object, or the reason
    """

    t: float
    job: str
    what: What
    kind: str | None = None
    template: int | None = None
    id: str | None = None
    status: int | None = None
    retry_after: str | None = None
    took_s: float | None = None
    seq: int | None = None
    data: str | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)


class Ledger:
    """The client's end of the file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, job: str, what: What, **fields: object) -> None:
        """Append one entry; it is with the kernel when this returns."""
        entry = {"t": time.monotonic(), "job": job, "what": what}
        entry |= {name: value for name, value in fields.items() if value is not None}
        self._file.write(_encoder.encode(entry) + b"\n")

    def close(self) -> None:
        """Write no more."""
        self._file.close()


class Reader:
    """The other end: gives what was appended since the last read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = 0
        self.entries: list[Entry] = []

    def read_new(self) -> list[Entry]:
        """All entries so far."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._place)
                new = file.read()
            # A line may be half written: the next read takes it.
            whole = new[: new.rfind(b"\n") + 1]
            self._place += len(whole)
            self.entries += [_decoder.decode(line) for line in whole.splitlines()]
        return self.entries
