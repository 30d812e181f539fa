"""Position watchers: streams of queued jobs, each sent its queue position as a comment whenever that changes."""

import itertools
from collections.abc import Callable, Collection, Mapping

from api.capacity.estimates import position_comment_of
from api.streaming.subscription import Subscription
from storage.jobs.waiting import QueuePosition

# Well under the number of parameters that a database takes in one statement.
_MAX_JOB_IDS = 10_000


class PositionWatchers:
    """Streams that were opened while their jobs were queued. No I/O: `QueueStatistics` reads the rows."""

    def __init__(self) -> None:
        self._comments_by_stream: dict[Subscription, _Comment] = {}

    def job_ids(self) -> set[str]:
        """The jobs whose positions are wanted, at most `_MAX_JOB_IDS`; the oldest streams come first."""
        for stream in [one for one in self._comments_by_stream if one.position is not None]:
            del self._comments_by_stream[stream]  # its log has entries, so its job has started
        return {one.job_id for one in itertools.islice(self._comments_by_stream, _MAX_JOB_IDS)}

    def add(self, stream: Subscription) -> Callable[[], bytes]:
        """A function that returns the stream's newest comment once; give the stream back with `remove`."""
        comment = self._comments_by_stream[stream] = _Comment()
        return comment.take

    def remove(self, stream: Subscription) -> None:
        """Forget a stream; an unknown one is ignored."""
        self._comments_by_stream.pop(stream, None)

    def update(self, requested: Collection[str], found: Mapping[str, tuple[QueuePosition, float | None]]) -> None:
        """Wake the streams whose comments changed, and forget those whose jobs are no longer queued.

        requested: jobs that were looked up
        found:     those of them that are queued: their position, and seconds until they start
        """
        for stream, comment in list(self._comments_by_stream.items()):
            if stream.job_id in found:
                if comment.put(position_comment_of(*found[stream.job_id])):
                    stream.wake()
            elif stream.job_id in requested:
                del self._comments_by_stream[stream]


class _Comment:
    """The newest comment of one stream."""

    __slots__ = ("_is_new", "_text")

    def __init__(self) -> None:
        self._text = b""
        self._is_new = False

    def put(self, text: bytes) -> bool:
        """Whether the text differs from what the stream has sent."""
        self._is_new |= text != self._text
        self._text = text
        return self._is_new

    def take(self) -> bytes:
        """The comment if the stream has not sent it yet, else nothing."""
        is_new, self._is_new = self._is_new, False
        return self._text if is_new else b""
