"""A segment parser of a small markup, which makes every kind of segment; for tests only."""

import re
from collections.abc import Sequence

from api.protocol.answer.segments import CallArguments, CallClosed, CallOpened, Reasoning, Segment, Text

NAME = "marked"
_MARKER = re.compile(r"<think>|</think>|<call:(\w+)>|<custom:(\w+)>|</call>")
# The longest end of a text that may still become a marker.
_DOUBTFUL = re.compile(r"<(/?[a-z]*(:\w*)?)?$")


class MarkedOutput:
    """Text with `<think>…</think>`, `<call:NAME>…</call>` and `<custom:NAME>…</call>`; state "think" begins inside."""

    def __init__(self, state: str) -> None:
        self._initial = state
        self._states: dict[int, str] = {}
        self._held: dict[int, str] = {}

    def push(self, choice: int, text: str, token_ids: Sequence[int]) -> Sequence[Segment]:
        """The segments that are certain."""
        text = self._held.pop(choice, "") + text
        segments: list[Segment] = []
        position = 0
        for found in _MARKER.finditer(text):
            segments += self._piece(choice, text[position : found.start()])
            segments += self._enter(choice, found)
            position = found.end()
        doubtful = _DOUBTFUL.search(text, position)
        end = len(text) if doubtful is None else doubtful.start()
        self._held[choice] = text[end:]
        return segments + self._piece(choice, text[position:end])

    def close(self, choice: int) -> Sequence[Segment]:
        """An incomplete marker is text of whatever is open."""
        return self._piece(choice, self._held.pop(choice, ""))

    def _piece(self, choice: int, text: str) -> list[Segment]:
        if not text:
            return []
        kind = {"think": Reasoning, "call": CallArguments}.get(self._states.get(choice, self._initial), Text)
        return [kind(text)]

    def _enter(self, choice: int, found: re.Match[str]) -> list[Segment]:
        was_call = self._states.get(choice, self._initial) == "call"
        name = found[1] or found[2]
        self._states[choice] = "call" if name else "think" if found[0] == "<think>" else ""
        closed: list[Segment] = [CallClosed()] if was_call else []
        return [*closed, CallOpened(name, is_custom=bool(found[2]))] if name else closed
