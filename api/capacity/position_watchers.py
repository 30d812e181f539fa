"""The streams whose jobs are still queued: each is told its place in line as a comment, whenever that changes."""

import itertools
from collections.abc import Callable, Collection, Mapping

from api.capacity.estimates import note_of
from api.streaming.subscription import Subscription
from storage.jobs.waiting import QueuePosition

# Well under the parameters that a database takes in one statement.
_MANY = 10_000


class PositionWatchers:
    """Streams that were opened while their jobs were queued. No I/O: whoever looks at the rows tells them."""

    def __init__(self) -> None:
        self._notes_by_stream: dict[Subscription, _Note] = {}

    def job_ids(self) -> set[str]:
        """The jobs whose places are wanted, not too many at once: the streams that wait longest come first."""
        for stream in [one for one in self._notes_by_stream if one.position is not None]:
            del self._notes_by_stream[stream]  # its log has begun, and so has its job
        return {one.job_id for one in itertools.islice(self._notes_by_stream, _MANY)}

    def join(self, stream: Subscription) -> Callable[[], bytes]:
        """What gives the stream its newest note, once; give the stream back with `leave`."""
        note = self._notes_by_stream[stream] = _Note()
        return note.take

    def leave(self, stream: Subscription) -> None:
        """Forget a stream; one that is not known is no matter."""
        self._notes_by_stream.pop(stream, None)

    def tell(self, asked: Collection[str], found: Mapping[str, tuple[QueuePosition, float | None]]) -> None:
        """Wake the streams whose notes changed, and forget those whose jobs wait no more.

        asked: jobs that were looked for
        found: of these, those that are queued: the place, and seconds until it is begun
        """
        for stream, note in list(self._notes_by_stream.items()):
            if stream.job_id in found:
                if note.put(note_of(*found[stream.job_id])):
                    stream.wake()
            elif stream.job_id in asked:
                del self._notes_by_stream[stream]


class _Note:
    """The newest comment of one stream."""

    __slots__ = ("_is_new", "_text")

    def __init__(self) -> None:
        self._text = b""
        self._is_new = False

    def put(self, text: bytes) -> bool:
        """Whether it says something new."""
        self._is_new |= text != self._text
        self._text = text
        return self._is_new

    def take(self) -> bytes:
        """The comment, if the stream has not told it."""
        is_new, self._is_new = self._is_new, False
        return self._text if is_new else b""
