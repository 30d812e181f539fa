"""The event stream of Responses: a pure fold over a job's log.

Order of events: created, [queued], in_progress, then for each output item output_item.added, its content or arguments,
output_item.done, then [error], completed | incomplete | failed. A message has content_part.added, output_text.delta,
output_text.done, content_part.done. `sequence_number` counts frames and `output_index` counts items, both from 0.

The log alone decides what is sent: in_progress comes with the first entry of any kind (a replay from the row has no
START), the message of plain text opens with the first TOKENS entry even when it holds no text.
"""

from collections.abc import Iterable, Iterator
from typing import assert_never

from api.protocol.answer.items import Item, ItemChange, ItemCompleted, ItemDelta, ItemKind, ItemOpened
from api.protocol.answer.logprobs import token_objects
from api.protocol.answer.outcome import Outcome
from api.protocol.families.stored_parser import parser_of
from api.protocol.responses.object import (
    content_part,
    item_id_of,
    item_object,
    item_status,
    opened_object,
    output_items,
    response_body,
    response_object,
    wants_logprobs,
)
from api.protocol.shared.envelope import failure_of
from api.protocol.shared.frames import event_frame, json_line
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
        self._outcome = Outcome(1, parser_of(header))
        self._wants_logprobs = wants_logprobs(header)
        self._next_number = 0
        self._is_in_progress = False
        # The item whose output_item.done is not sent yet, and how many items were opened.
        self._open: Item | None = None
        self._open_position: dict[str, object] = {}
        self._num_opened = 0
        # Whether an entry of tokens is nothing but deltas of the open message.
        self._is_plain = False
        self._delta_head = b""

    @property
    def is_ended(self) -> bool:
        """Whether the terminal event was returned."""
        return self._outcome.end is not None

    def open(self) -> list[bytes]:
        """The frames before any entry."""
        if not self._header.background:
            return [self._snapshot("response.created", JobStatus.IN_PROGRESS)]
        return [self._snapshot(f"response.{word}", JobStatus.QUEUED) for word in ("created", "queued")]

    def feed(self, entry: LogEntry) -> list[bytes]:
        """The frames that `entry` adds; the START of a later attempt adds none."""
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
            yield from self._tokens(entry)
        elif entry.end is not None:
            yield from self._close(entry.end)

    def _tokens(self, entry: LogEntry) -> Iterator[bytes]:
        if self._outcome.parser is not None:
            for event in entry.tokens:
                yield from self._changed(self._outcome.push(event))
            return
        if self._open is None:
            yield from self._open_plain()
        yield from self._measured_deltas(entry) if self._wants_logprobs else self._deltas(entry)

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
        position = self._open_position
        for event in entry.tokens:
            self._outcome.add_measured(event)
            logprobs = token_objects([event], self._header)
            if event.text or logprobs:
                yield self._event("response.output_text.delta", **position, delta=event.text, logprobs=logprobs)

    def _open_plain(self) -> Iterator[bytes]:
        item = self._outcome.choices[0].items[0]
        yield from self._open_item(item)
        before = event_frame({"type": "response.output_text.delta", **self._position_of(item), "delta": ""})
        self._delta_head = before.removesuffix(b'""}\n\n')
        self._is_plain = not self._wants_logprobs

    def _changed(self, changes: Iterable[ItemChange]) -> Iterator[bytes]:
        """The frames of changed items of an answer that has a parser."""
        for change in changes:
            match change:
                case ItemOpened(item):
                    yield from self._open_item(item)
                case ItemDelta(item, text, measured):
                    logprobs = token_objects(measured, self._header) if self._wants_logprobs else []
                    if text or logprobs:
                        yield self._delta(item, text, logprobs)
                case ItemCompleted(item):
                    yield from self._close_item(item, "completed")
                case _:
                    assert_never(change)

    def _delta(self, item: Item, text: str, logprobs: list[dict[str, object]]) -> bytes:
        position = self._position_of(item)
        match item.kind:
            case ItemKind.TEXT:
                return self._event("response.output_text.delta", **position, delta=text, logprobs=logprobs)
            case ItemKind.REASONING:
                return self._event("response.reasoning_text.delta", **position, delta=text)
            case ItemKind.CALL:
                return self._event(f"{_arguments_event(item)}.delta", **position, delta=text)
            case _:
                assert_never(item.kind)

    def _position_of(self, item: Item) -> dict[str, object]:
        position: dict[str, object] = {"item_id": item_id_of(self._header.job_id, item), "output_index": item.index}
        return position if item.kind is ItemKind.CALL else {**position, "content_index": 0}

    def _open_item(self, item: Item) -> Iterator[bytes]:
        self._open, self._open_position = item, self._position_of(item)
        self._num_opened += 1
        yield self._event("response.output_item.added", output_index=item.index, item=opened_object(self._header, item))
        if item.kind is not ItemKind.CALL:
            part = content_part(self._header, Item(item.kind))
            yield self._event("response.content_part.added", **self._position_of(item), part=part)

    def _close_item(self, item: Item, status: str) -> Iterator[bytes]:
        self._open = None
        position = self._position_of(item)
        if item.kind is ItemKind.CALL:
            field = "input" if item.is_custom else "arguments"
            yield self._event(f"{_arguments_event(item)}.done", **position, **{field: item.text})
        else:
            part = content_part(self._header, item)
            if item.kind is ItemKind.TEXT:
                fields = {"text": part["text"], "logprobs": part["logprobs"]}
                yield self._event("response.output_text.done", **position, **fields)
            else:
                yield self._event("response.reasoning_text.done", **position, text=part["text"])
            yield self._event("response.content_part.done", **position, part=part)
        done = item_object(self._header, item, status)
        yield self._event("response.output_item.done", output_index=item.index, item=done)

    def _close(self, end: End) -> Iterator[bytes]:
        for changes in self._outcome.finish(end).values():
            yield from self._changed(changes)
        items = output_items(self._outcome)
        if items and not self._num_opened:
            yield from self._open_item(items[0])
        if self._open is not None:
            yield from self._close_item(self._open, item_status(self._open, end.status))
        if end.status is JobStatus.FAILED:
            failure = failure_of(end)
            yield self._event("error", code=failure.code, message=failure.message, param=None)
        yield self._event(_TERMINAL[end.status], response=response_object(self._header, self._outcome))

    def _snapshot(self, type: str, status: JobStatus) -> bytes:  # noqa: A002 - the wire's word
        return self._event(type, response=response_body(self._header, status, [], None))

    def _event(self, type: str, **fields: object) -> bytes:  # noqa: A002 - the wire's word
        number = self._next_number
        self._next_number += 1
        return event_frame({"type": type, **fields, "sequence_number": number})


def _arguments_event(item: Item) -> str:
    return "response.custom_tool_call_input" if item.is_custom else "response.function_call_arguments"
