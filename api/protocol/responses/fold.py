"""The event stream of Responses: a pure fold over a job's log.

Order of events: created, [queued], in_progress, output_item.added, content_part.added, deltas, output_text.done,
content_part.done, output_item.done, [error], completed | incomplete | failed. `sequence_number` counts frames from 0.

The log alone decides what is sent: in_progress comes with the first entry of any kind (a replay from the row has no
START), the message opens with the first TOKENS entry even when it holds no text.
"""

from collections.abc import Iterator

from api.protocol.responses.object import (
    answer_part,
    has_message,
    item_status,
    message_id_of,
    message_item,
    response_body,
    response_object,
    text_part,
)
from api.protocol.shared.envelope import failure_of
from api.protocol.shared.frames import event_frame, json_line
from api.protocol.shared.logprobs import token_objects, wants_logprobs
from api.protocol.shared.outcome import Outcome
from storage.contract import End, EntryKind, JobHeader, JobStatus, LogEntry

_TERMINAL = {
    JobStatus.COMPLETED: "response.completed",
    JobStatus.INCOMPLETE: "response.incomplete",
    JobStatus.FAILED: "response.failed",
    # Neither specification has an event for it, and SDKs mistype a new one; the status in the body says cancelled.
    JobStatus.CANCELLED: "response.incomplete",
}


class ResponseFold:
    """The fold of a response: makes frames from log entries, given once each and in order."""

    def __init__(self, header: JobHeader) -> None:
        self._header = header
        self._outcome = Outcome(1)
        self._place = {"item_id": message_id_of(header.job_id), "output_index": 0, "content_index": 0}
        self._wants_logprobs = wants_logprobs(header)
        self._next_number = 0
        self._is_in_progress = False
        self._has_item = False
        # Whether an entry of tokens is nothing but deltas of text.
        self._is_plain = False
        before = event_frame({"type": "response.output_text.delta", **self._place, "delta": ""})
        self._delta_head = before.removesuffix(b'""}\n\n')

    @property
    def is_ended(self) -> bool:
        """Whether the terminal event was given."""
        return self._outcome.end is not None

    def open(self) -> list[bytes]:
        """The frames known before any entry."""
        if not self._header.background:
            return [self._snapshot("response.created", JobStatus.IN_PROGRESS)]
        return [self._snapshot(f"response.{word}", JobStatus.QUEUED) for word in ("created", "queued")]

    def feed(self, entry: LogEntry) -> list[bytes]:
        """The frames that `entry` adds; a later attempt's START adds none."""
        if entry.kind is EntryKind.TOKENS and self._is_plain:
            return self._deltas(entry)
        if self.is_ended:
            return []
        return list(self._feed_slowly(entry))

    def _feed_slowly(self, entry: LogEntry) -> Iterator[bytes]:
        if not self._is_in_progress:
            self._is_in_progress = True
            yield self._snapshot("response.in_progress", JobStatus.IN_PROGRESS)
        if entry.kind is EntryKind.TOKENS:
            self._outcome.has_tokens = True
            if not self._has_item:
                yield from self._open_item()
            yield from self._measured_deltas(entry) if self._wants_logprobs else self._deltas(entry)
        elif entry.end is not None:
            self._outcome.end = entry.end
            yield from self._close(entry.end)

    def _deltas(self, entry: LogEntry) -> list[bytes]:
        frames = []
        for event in entry.tokens:
            self._outcome.add_event(event)
            if event.text:
                frames.append(
                    b'%b%b,"logprobs":[],"sequence_number":%d}\n\n'
                    % (self._delta_head, json_line(event.text), self._next_number)
                )
                self._next_number += 1
        return frames

    def _measured_deltas(self, entry: LogEntry) -> Iterator[bytes]:
        """A delta for each event with text or log probabilities; the text may be empty."""
        for event in entry.tokens:
            self._outcome.add_measured(event)
            logprobs = token_objects([event], self._header)
            if event.text or logprobs:
                yield self._event("response.output_text.delta", **self._place, delta=event.text, logprobs=logprobs)

    def _open_item(self) -> Iterator[bytes]:
        self._has_item = True
        self._is_plain = not self._wants_logprobs
        item = message_item(self._header.job_id, "in_progress", None)
        yield self._event("response.output_item.added", output_index=0, item=item)
        yield self._event("response.content_part.added", **self._place, part=text_part(""))

    def _close(self, end: End) -> Iterator[bytes]:
        if has_message(self._outcome):
            if not self._has_item:
                yield from self._open_item()
            yield from self._close_item(end)
        if end.status is JobStatus.FAILED:
            failure = failure_of(end)
            yield self._event("error", code=failure.code, message=failure.message, param=None)
        yield self._event(_TERMINAL[end.status], response=response_object(self._header, self._outcome))

    def _close_item(self, end: End) -> Iterator[bytes]:
        part = answer_part(self._header, self._outcome.choices[0])
        item = message_item(self._header.job_id, item_status(end.status), part)
        fields = {"text": part["text"], "logprobs": part["logprobs"]}
        yield self._event("response.output_text.done", **self._place, **fields)
        yield self._event("response.content_part.done", **self._place, part=part)
        yield self._event("response.output_item.done", output_index=0, item=item)

    def _snapshot(self, type: str, status: JobStatus) -> bytes:  # noqa: A002 - the wire's word
        return self._event(type, response=response_body(self._header, status, [], None))

    def _event(self, type: str, **fields: object) -> bytes:  # noqa: A002 - the wire's word
        number = self._next_number
        self._next_number += 1
        return event_frame({"type": type, **fields, "sequence_number": number})
