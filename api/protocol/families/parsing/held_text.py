"""The text of one choice that is not given out yet, and the segments that are ready."""

from collections.abc import Sequence

from api.protocol.answer.segments import CallArguments, Reasoning, Segment, Text
from api.protocol.families.literal_words import Finder
from storage.contract import MARKER_SIGN

# White space before a marker is not given out. Without a bound, a text of spaces would be read again and again.
_MAX_HELD_SPACE = 256


class HeldText:
    """Text with a position up to which it is done with.

    skips_space: whether white space at the beginning of the next text belongs to nothing
    """

    def __init__(self, *, skips_space: bool) -> None:
        self.text = ""
        self.position = 0
        self.skips_space = skips_space
        self.segments: list[Segment] = []

    @property
    def is_empty(self) -> bool:
        """Whether all text is done with."""
        return self.position >= len(self.text)

    def add(self, text: str) -> None:
        """Add text at the end."""
        self.text = self.text[self.position :] + text
        self.position = 0

    def take_rest(self) -> str:
        """All that is held."""
        held, self.text, self.position = self.text[self.position :], "", 0
        return held

    def take_segments(self) -> Sequence[Segment]:
        """The segments since the last call."""
        segments, self.segments = self.segments, []
        return segments

    def give(self, kind: type[Text] | type[Reasoning], text: str) -> None:
        """Give out text."""
        if self.skips_space:
            text = text.lstrip()
        if text:
            self.skips_space = False
            self.segments.append(kind(text.replace(MARKER_SIGN, "")))

    def give_arguments(self, text: str) -> None:
        """Give out a piece of a call's arguments."""
        if text:
            self.segments.append(CallArguments(text.replace(MARKER_SIGN, "")))

    def read_until(self, finder: Finder, kind: type[Text] | type[Reasoning] | None) -> str | None:
        """Give out text until one of the markers; returns the marker, None where none is whole yet.

        White space before the marker is left out.

        kind: None gives out nothing
        """
        found = finder.find(self.text, self.position)
        end = finder.held_from(self.text, self.position) if found is None else found.start()
        certain = self._before_space(end)
        if kind is not None:
            self.give(kind, self.text[self.position : certain])
        self.position = certain if found is None else found.end()
        return None if found is None else found[0]

    def arguments_until(self, finder: Finder) -> bool:
        """Give out a call's arguments until a marker; returns whether it is there."""
        found = finder.find(self.text, self.position)
        end = finder.held_from(self.text, self.position) if found is None else found.start()
        self.give_arguments(self.text[self.position : end])
        self.position = end if found is None else found.end()
        return found is not None

    def _before_space(self, end: int) -> int:
        low = max(self.position, end - _MAX_HELD_SPACE)
        while end > low and self.text[end - 1].isspace():
            end -= 1
        return end
