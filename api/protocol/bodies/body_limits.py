"""Bounds on the number of JSON values in a request body, checked before it is decoded.

Every JSON decoder holds the interpreter lock for the whole document, and its time depends on the number of values more
than on their bytes: 8.5 MB with 250,000 small messages took a second, in which no stream went on. Counting works on
short slices and lets other threads run between them.
"""

import time

from storage.errors import InvalidRequest

# Token ids and other values; messages, content parts and other objects; strings and keys; backslashes in a row.
MAX_VALUES = 2**18
MAX_OBJECTS = 2**12
MAX_STRINGS = 2**15
MAX_BACKSLASHES = 2**16
SLICE_BYTES = 64 * 1024


def refuse_too_many_values(body: bytes, slice_bytes: int = SLICE_BYTES) -> list[tuple[int, int]]:
    """Raise InvalidRequest for a JSON body with too many values; for threads, as it may take milliseconds.

    Only structure outside strings counts. Bytes that are no JSON are counted somehow and left to the decoder.

    returns: start and end of each run of whole slices inside one string
    """
    num_values = num_objects = num_quotes = num_backslashes = 0
    runs: list[tuple[int, int]] = []
    is_in_string = False
    rest = b""
    for start in range(0, len(body), slice_bytes):
        piece = rest + body[start : start + slice_bytes]
        # Escapes are removed in pairs; one that the slice cuts goes to the next slice.
        kept = piece.rstrip(b"\\")
        num_dropped = len(piece) - len(kept)
        rest = b"\\" * (num_dropped % 2)
        num_backslashes = num_dropped if kept else num_backslashes + num_dropped
        parts = kept.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        if is_in_string and len(parts) == 1:
            _add_run(runs, start, min(start + slice_bytes, len(body)))
        structure = b"".join(parts[is_in_string::2])
        is_in_string ^= len(parts) % 2 == 0
        num_quotes += len(parts) - 1
        num_objects += structure.count(b"{")
        num_values += structure.count(b",") + structure.count(b"[")
        if num_backslashes > MAX_BACKSLASHES:
            raise InvalidRequest(f"The request body has more than {MAX_BACKSLASHES} backslashes in a row.")
        if num_objects > MAX_OBJECTS:
            raise InvalidRequest(f"The request body has more than {MAX_OBJECTS} JSON objects.")
        if num_quotes > 2 * MAX_STRINGS:
            raise InvalidRequest(f"The request body has more than {MAX_STRINGS} JSON strings.")
        if num_values > MAX_VALUES:
            raise InvalidRequest(f"The request body has more than {MAX_VALUES} JSON values.")
        time.sleep(0)  # lets another thread take the interpreter lock
    return runs


def _add_run(runs: list[tuple[int, int]], start: int, end: int) -> None:
    if runs and runs[-1][1] == start:
        runs[-1] = runs[-1][0], end
    else:
        runs.append((start, end))
