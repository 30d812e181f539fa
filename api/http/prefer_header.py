"""The `Prefer` header: how long a caller wants to wait.

Source: RFC 7240, sections 2, 4.1 and 4.3.
"""

from dataclasses import dataclass

from storage.errors import InvalidRequest

MAX_WAIT_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """What a caller prefers; other preferences are not ours and, as the RFC says, passed over.

    wait_s: after so many seconds a 202 instead of the answer; 0 is at once, None is never
    """

    wait_s: int | None
    applied: str


NO_PREFERENCE = Preference(wait_s=None, applied="")


def parse(header: bytes | None) -> Preference:
    """What a `Prefer` header asks for; InvalidRequest for a wait that is no number of seconds."""
    if not header:
        return NO_PREFERENCE
    found = dict(_pair_of(part) for part in header.decode("latin-1").split(",") if part.strip())
    applied = []
    if "respond-async" in found:
        applied.append("respond-async")
    if "wait" in found:
        wait = found["wait"]
        if not (wait.isascii() and wait.isdigit() and len(wait) < 10):
            raise InvalidRequest("Invalid 'Prefer' header: wait must be a whole number of seconds.", param="Prefer")
        applied.append(f"wait={wait}")
        return Preference(wait_s=min(int(wait), MAX_WAIT_S), applied=", ".join(applied))
    return Preference(wait_s=0, applied="respond-async") if applied else NO_PREFERENCE


def _pair_of(part: str) -> tuple[str, str]:
    name, _, value = part.partition(";")[0].partition("=")
    return name.strip().lower(), value.strip().strip('"')
