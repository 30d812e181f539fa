"""What came of a create call: the job, new or made by an earlier try of the same call."""

from collections.abc import Sequence
from dataclasses import dataclass

from api.protocol.kinds import object_of
from api.streaming.subscription import Subscription
from storage.contract import End, JobHeader, LogEntry, Result
from storage.jobs.waiting import QueuePosition


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A job that is committed and on its way, or was before.

    subscription: set for a job that is followed
    place:        where it stands in line, as far as is known; None for one that is begun
    number:       how many callers had joined when this one did, itself included; 0 for who made the job
    is_replay:    an earlier call made it
    so_far, end:  what is known of it beside what the subscription will bring
    """

    header: JobHeader
    subscription: Subscription | None
    position: QueuePosition | None = None
    number: int = 0
    is_replay: bool = False
    so_far: Sequence[LogEntry] | Result = ()
    end: End | None = None

    @property
    def following(self) -> Subscription:
        """The subscription of a followed job; release it when the job's story is told."""
        assert self.subscription is not None
        return self.subscription

    def object(self) -> dict[str, object]:
        """The job as its protocol shows it now."""
        return object_of(self.header, self.so_far, self.end)
