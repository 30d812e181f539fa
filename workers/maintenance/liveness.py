"""Liveness by heartbeat counters: pure functions of what was observed and of the observer's own clock."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A counter as it was last seen to move.

    beat:  its value; equal values mean that nothing moved
    since: when that value was first seen, monotonic seconds
    """

    beat: object
    since: float


def observe(
    before: Mapping[str, Observation], beats: Iterable[tuple[str, object]], now: float
) -> dict[str, Observation]:
    """What is known after another pass; those that are not there any more are forgotten."""
    seen = {}
    for name, beat in beats:
        known = before.get(name)
        seen[name] = known if known is not None and known.beat == beat else Observation(beat=beat, since=now)
    return seen


def dead_workers(observations: Mapping[str, Observation], now: float, lease_s: float) -> list[str]:
    """Those whose counter has not moved for a whole lease."""
    return [name for name, seen in observations.items() if now - seen.since >= lease_s]


def renewed(observations: Mapping[str, Observation], now: float) -> dict[str, Observation]:
    """The same, with every lease beginning now: while the database was away no worker could renew its lease."""
    return {name: replace(seen, since=now) for name, seen in observations.items()}
