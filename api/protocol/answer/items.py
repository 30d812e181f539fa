"""Items of an answer: messages, reasoning and tool calls, built from segments and the same in streams and objects."""

import hashlib
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import assert_never

import msgspec

from api.protocol.answer.segments import CallArguments, CallClosed, CallOpened, Reasoning, Segment, Text
from storage.contract import TokenEvent


class ItemKind(Enum):
    """What an item is on every wire."""

    TEXT = auto()
    REASONING = auto()
    CALL = auto()


class Item:
    """One item of a choice's answer.

    index:       its position among all items of the choice
    number:      its position among the items of its kind
    name:        of the called tool
    measured:    token events with log probabilities, for text
    is_complete: whether the model finished it; the last item may instead be complete because the job is
    is_before_call: whether it is a text that a call follows
    """

    __slots__ = ("index", "is_before_call", "is_complete", "is_custom", "kind", "measured", "name", "number", "pieces")

    def __init__(self, kind: ItemKind, *, index: int = 0, number: int = 0, name: str = "", is_custom: bool = False):
        self.kind = kind
        self.index = index
        self.number = number
        self.name = name
        self.is_custom = is_custom
        self.is_complete = False
        self.is_before_call = False
        self.pieces: list[str] = []
        self.measured: list[TokenEvent] = []

    @property
    def text(self) -> str:
        """The text, the reasoning or the arguments so far."""
        return "".join(self.pieces)


class ItemOpened(msgspec.Struct, frozen=True):
    """A new item begins; it is empty."""

    item: Item


class ItemDelta(msgspec.Struct, frozen=True):
    """Text was added to an item, with the log probabilities of `measured` events."""

    item: Item
    text: str
    measured: tuple[TokenEvent, ...] = ()


class ItemCompleted(msgspec.Struct, frozen=True):
    """The item is complete."""

    item: Item


ItemChange = ItemOpened | ItemDelta | ItemCompleted


class ItemList:
    """The items of one choice, built from segments; at most one item is open at a time."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._open: Item | None = None

    @property
    def open_item(self) -> Item | None:
        """The item that more text may be added to."""
        return self._open

    def push(self, segments: Sequence[Segment], event: TokenEvent | None) -> list[ItemChange]:
        """The changes that the segments of one token event make.

        Log probabilities of the event belong to its first text, or to an open text whose text is held back. Those of
        reasoning and calls are not reported.
        """
        measured = (event,) if event is not None and event.logprobs is not None else ()
        changes: list[ItemChange] = []
        for segment in segments:
            changes += self._apply(segment, measured if isinstance(segment, Text) else ())
            if isinstance(segment, Text):
                measured = ()
        if measured and not segments and self._open is not None and self._open.kind is ItemKind.TEXT:
            changes += self._extend(ItemKind.TEXT, "", measured)
        return changes

    def _apply(self, segment: Segment, measured: tuple[TokenEvent, ...]) -> Iterator[ItemChange]:
        match segment:
            case Text(text):
                yield from self._extend(ItemKind.TEXT, text, measured)
            case Reasoning(text):
                yield from self._extend(ItemKind.REASONING, text, ())
            case CallOpened(name, is_custom):
                yield from self._begin(ItemKind.CALL, name, is_custom=is_custom)
            case CallArguments(text):
                assert self._open is not None
                assert self._open.kind is ItemKind.CALL
                yield from self._extend(ItemKind.CALL, text, ())
            case CallClosed():
                yield from self._complete()
            case _:
                assert_never(segment)

    def _extend(self, kind: ItemKind, text: str, measured: tuple[TokenEvent, ...]) -> Iterator[ItemChange]:
        if self._open is None or self._open.kind is not kind:
            yield from self._begin(kind)
        item = self._open
        assert item is not None
        if text:
            item.pieces.append(text)
        item.measured += measured
        yield ItemDelta(item, text, measured)

    def _begin(self, kind: ItemKind, name: str = "", *, is_custom: bool = False) -> Iterator[ItemChange]:
        if self._open is not None:
            self._open.is_before_call = self._open.kind is ItemKind.TEXT and kind is ItemKind.CALL
        yield from self._complete()
        number = sum(item.kind is kind for item in self.items)
        self._open = Item(kind, index=len(self.items), number=number, name=name, is_custom=is_custom)
        self.items.append(self._open)
        yield ItemOpened(self._open)

    def _complete(self) -> Iterator[ItemChange]:
        if self._open is not None:
            item, self._open = self._open, None
            item.is_complete = True
            yield ItemCompleted(item)


def call_id_of(job_id: str, choice: int, number: int) -> str:
    """The `call_id` of a choice's call, equal in every replay and unique over all jobs."""
    return "call_" + hashlib.sha256(f"{job_id}/{choice}/{number}".encode()).hexdigest()[:24]
