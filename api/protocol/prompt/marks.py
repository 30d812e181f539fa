"""Marks: private characters inside strings of callers, so that they hold no text of a control token.

A mark lies inside each control token's text, and inside what may become one beside other text of the prompt: a string
that ends with `<|im_`, or begins with `end|>`. It travels with its string through the chat template, which may trim and
rearrange strings, and is removed before the prompt is encoded.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

# Private characters; marks are two that the prompt does not contain.
_MARKS = range(0xF0000, 0xFFFFE)


class Marks(NamedTuple):
    """The characters of one prompt.

    inside: in a control token's text
    edge:   in a part of one, at the edge of a string
    """

    inside: str
    edge: str

    def removed(self, text: str) -> str:
        """The text without marks, however the template wrote them."""
        for mark in self:
            for form in _forms(mark):
                text = text.replace(form, "")
        return text


def _forms(mark: str) -> tuple[str, str, str]:
    """How templates write the mark: as it is, in ASCII JSON, and as Python shows a string inside an object."""
    return mark, json.dumps(mark)[1:-1], ascii(mark)[1:-1]


class Marker:
    """Finds and marks the texts of control tokens."""

    def __init__(self, texts: Sequence[str]) -> None:
        """texts: of all control tokens, none empty"""
        self._texts = tuple(texts)
        self._pattern = _any_of(texts) if texts else r"(?!)"
        self._whole = re.compile(self._pattern)
        self._max_length = max(map(len, texts), default=0)
        self._beginnings = frozenset(text[:length] for text in texts for length in range(1, len(text)))
        self._first_characters = frozenset(text[0] for text in texts)
        self._last_characters = frozenset(text[-1] for text in texts)
        self._ends = frozenset(text[start:] for text in texts for start in range(1, len(text)))

    def is_in(self, text: str) -> bool:
        """Whether the text holds that of a control token."""
        return self._whole.search(text) is not None

    def may_join(self, text: str) -> bool:
        """Whether the text of a control token may begin, end or go on in this one, where a template joins strings."""
        return any(True for _ in self._joints(text))

    def marked(self, texts: Sequence[str], beside: str) -> tuple[list[str], Marks]:
        """The texts with marks.

        beside: other text of the prompt, which does not contain the marks either
        """
        everything = beside + "".join(texts)
        free = (mark for mark in map(chr, _MARKS) if not any(one in everything for one in _forms(mark)))
        marks = Marks(next(free), next(free))
        return [self._mark(text, marks) for text in texts], marks

    def unmarked(self, prompt: str, marks: Marks) -> list[str]:
        """The control tokens that a prompt with marks makes, in order."""
        return [found[0] for found in self.pattern(marks).finditer(prompt)]

    def pattern(self, marks: Marks) -> re.Pattern[str]:
        """What finds control tokens that are not marked. One of a single character is marked behind it."""
        after = "|".join(map(re.escape, _forms(marks.inside)))
        return re.compile(f"(?:{self._pattern})(?!{after})")

    def _mark(self, text: str, marks: Marks) -> str:
        for position in sorted(set(self._joints(text)), reverse=True):
            text = text[:position] + marks.edge + text[position:]
        pattern = self.pattern(marks)
        # A mark may leave another control token's text whole where two overlap.
        while pattern.search(text) is not None:
            text = pattern.sub(lambda found: found[0][0] + marks.inside + found[0][1:], text)
        return text

    def _joints(self, text: str) -> Iterator[int]:
        """Where edge marks belong. Templates trim strings, so white space at the edges does not count."""
        core = text.strip()
        start = len(text) - len(text.lstrip())
        end = start + len(core)
        longest = min(len(core), self._max_length - 1)
        # Most texts have no first character of a control token near their end, nor a last one near their beginning.
        if not self._first_characters.isdisjoint(core[len(core) - longest :]):
            yield from (end - length + 1 for length in range(1, longest + 1) if core[-length:] in self._beginnings)
        if not self._last_characters.isdisjoint(core[:longest]):
            yield from (start + length - 1 for length in range(1, longest + 1) if core[:length] in self._ends)
        if 0 < len(core) < self._max_length and any(core in one for one in self._texts):
            yield start + 1


def sorted_texts(texts: Iterable[str]) -> list[str]:
    """Each text once, in one order, without the empty one."""
    return sorted({text for text in texts if text})


def _any_of(texts: Sequence[str]) -> str:
    """A pattern of the longest of these texts. Common beginnings are matched once, since tokenizers have hundreds."""
    pairs = zip(min(texts), max(texts), strict=False)
    prefix = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    tails: dict[str, list[str]] = {}
    for text in texts:
        if len(text) > len(prefix):
            tails.setdefault(text[len(prefix)], []).append(text)
    if not tails:
        return re.escape(prefix)
    rest = "|".join(_any_of([text[len(prefix) :] for text in some]) for some in tails.values())
    return f"{re.escape(prefix)}(?:{rest}){'?' if prefix in texts else ''}"
