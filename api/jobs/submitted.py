"""The outcome of a create request: a new job, or that of an earlier attempt of the same request."""

from collections.abc import Sequence

import msgspec

from api.protocol.kinds import object_of
from api.streaming.subscription import Subscription
from storage.contract import End, JobHeader, LogEntry, Result
from storage.jobs.waiting import QueuePosition


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is committed and whose ticket was sent.

    subscription: set for a job that is followed
    position:     its queue position as far as it is known; None for a job that has started
    number:       how many callers had attached with this one; 0 for the caller that created the job
    is_replay:    an earlier request created it
    unenforced:   keywords of the request's schemas that are not enforced
    so_far, end:  its state where it is not followed by a subscription
    """

    header: JobHeader
    subscription: Subscription | None
    position: QueuePosition | None = None
    number: int = 0
    is_replay: bool = False
    unenforced: tuple[str, ...] = ()
    so_far: Sequence[LogEntry] | Result = ()
    end: End | None = None

    @property
    def following(self) -> Subscription:
        """The subscription of a followed job; release it when the response is complete."""
        assert self.subscription is not None
        return self.subscription

    def object(self) -> dict[str, object]:
        """The job as its protocol shows it now."""
        return object_of(self.header, self.so_far, self.end)
