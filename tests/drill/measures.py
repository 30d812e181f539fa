"""How long things took, from the ledger. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.drill.judge import Story, stories_of
from tests.drill.ledger import Entry, What

# A thing that was to answer within two seconds is given this much more on a machine that does other things too.
BUSY_S = 1.0
REFUSAL_LIMIT_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Creates:
    """How the requests for new jobs were answered in a time in which a part was away.

    slow_s: the longest wait for a refusal, or for the head of an acceptance
    bare:   refusals without a Retry-After
    """

    num_refused: int = 0
    num_accepted: int = 0
    num_broken: int = 0
    slow_s: float = 0.0
    bare: int = 0
    others: tuple[int, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether none hung, and each refusal says when to come again."""
        return not self.bare and not self.others and self.slow_s <= REFUSAL_LIMIT_S + BUSY_S

    def __str__(self) -> str:
        reported = f"{self.num_refused}x503"
        reported += f" {self.num_accepted}x2xx" if self.num_accepted else ""
        reported += f" {self.num_broken} broken" if self.num_broken else ""
        reported += f" {self.others}" if self.others else ""
        reported += f" {self.bare} without Retry-After" if self.bare else ""
        return f"{reported}, {self.slow_s:.2f} s"


def creates_between(entries: Iterable[Entry], start: float, end: float) -> Creates | None:
    """The answers to requests that were sent in this time; None where nobody asked."""
    asked: dict[str, float] = {}
    kinds: dict[str, Story] = stories_of(entries)
    answers: list[tuple[float, Entry]] = []
    for entry in entries:
        if entry.what is What.ASKED:
            asked[entry.job] = entry.t
        elif entry.job in asked and entry.what in (What.ACCEPTED, What.REFUSED, What.BROKEN):
            answers.append((asked.pop(entry.job), entry))
    inside = [(at, entry) for at, entry in answers if start <= at <= end]
    if not inside:
        return None
    refused = [(at, entry) for at, entry in inside if entry.what is What.REFUSED]
    accepted = [(at, entry) for at, entry in inside if entry.what is What.ACCEPTED]
    # A blocking call that is accepted takes as long as its job.
    timed = refused + [(at, entry) for at, entry in accepted if not kinds[entry.job].kind.is_blocking]
    return Creates(
        num_refused=sum(entry.status in (429, 503) for _, entry in refused),
        num_accepted=len(accepted),
        num_broken=sum(entry.what is What.BROKEN for _, entry in inside),
        slow_s=max((entry.t - at for at, entry in timed), default=0.0),
        bare=sum(entry.retry_after is None for _, entry in refused),
        others=tuple(sorted({entry.status or 0 for _, entry in refused} - {429, 503})),
    )


def streams_open_at(entries: Sequence[Entry], moment: float) -> list[str]:
    """Jobs whose streams had begun and not ended."""
    begun = {entry.job for entry in entries if entry.what is What.EVENT and entry.t < moment}
    ended = {entry.job for entry in entries if entry.what in (What.ENDED, What.GAVE_UP) and entry.t < moment}
    return sorted(begun - ended)


def streams_went_on(entries: Sequence[Entry], back: float) -> float | None:
    """Seconds from `back` until every stream that was open then had said something new; None where none was."""
    waiting = set(streams_open_at(entries, back))
    last = None
    for entry in entries:
        if entry.t >= back and entry.job in waiting and entry.what in (What.EVENT, What.ENDED):
            waiting.discard(entry.job)
            last = entry.t - back
    return float("inf") if waiting else last


def probe_succeeded(entries: Iterable[Entry], back: float) -> float | None:
    """Seconds from `back` until a probe had come to its end; None where none did."""
    probes = {entry.job for entry in entries if entry.kind == "probe"}
    ends = [entry.t for entry in entries if entry.what is What.ENDED and entry.job in probes and entry.t >= back]
    return min(ends) - back if ends else None
