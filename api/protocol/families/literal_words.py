"""Matching a family's literals at the edge of text that still grows: whole, impossible, or undecided.

A literal is matched word by word with any white space between the words, since models vary it. A word is a marker, a
quoted JSON key, a punctuation mark of JSON or a run of other characters.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from api.protocol.families.family import NUMBER
from storage.contract import MARKER_SIGN

# Results of matching besides a position.
IMPOSSIBLE, UNDECIDED = -1, -2
# White space between two words; without a bound a text of spaces would be read again with every piece.
MAX_SPACE = 64
_MAX_DIGITS = 9
_WORD = re.compile(
    rf'{MARKER_SIGN}<[^>]*>|{MARKER_SIGN}\[[^\]]*\]|"\w+"|{NUMBER}|[{{}}\[\]:,"]|[^\s{{}}\[\]:,"{MARKER_SIGN}{NUMBER}]+'
)


@lru_cache(maxsize=4096)
def words_of(literal: str) -> tuple[str, ...]:
    """The words of a literal; white space at its edges and between them does not count."""
    return tuple(_WORD.findall(literal))


def match_words(text: str, position: int, words: Sequence[str]) -> int:
    """The position behind the words that stand at `position`; IMPOSSIBLE, or UNDECIDED where the text is too short."""
    for word in words:
        position = skip_space(text, position)
        if position < 0:
            return position
        if word == NUMBER:
            position = _match_number(text, position)
        elif text.startswith(word, position):
            position += len(word)
        else:
            return UNDECIDED if word.startswith(text[position : position + len(word)]) else IMPOSSIBLE
        if position < 0:
            return position
    return position


def skip_space(text: str, position: int) -> int:
    """The position behind white space, whose end is there; UNDECIDED at the end of text, IMPOSSIBLE for too much."""
    start = position
    while position < len(text) and text[position].isspace():
        position += 1
    if position - start > MAX_SPACE:
        return IMPOSSIBLE
    return UNDECIDED if position == len(text) else position


def match_any(text: str, position: int, literals: Iterable[Sequence[str]]) -> tuple[int, int]:
    """(index, position behind it) of the first of several sequences of words that stands at `position`.

    Where none does, the position is UNDECIDED if one still may, else IMPOSSIBLE.
    """
    result = IMPOSSIBLE
    for index, words in enumerate(literals):
        found = match_words(text, position, words)
        if found >= 0:
            return index, found
        if found == UNDECIDED:
            result = UNDECIDED
    return -1, result


def _match_number(text: str, position: int) -> int:
    end = position
    while end < len(text) and text[end].isdecimal() and end - position <= _MAX_DIGITS:
        end += 1
    if end == len(text) and end - position <= _MAX_DIGITS:
        return UNDECIDED
    return end if 0 < end - position <= _MAX_DIGITS else IMPOSSIBLE


class Finder:
    """Finds the first of several literals in text that still grows."""

    def __init__(self, literals: Iterable[str]) -> None:
        """literals: none empty, none the beginning of another"""
        self.literals = tuple(dict.fromkeys(literals))
        self._pattern = re.compile("|".join(map(re.escape, self.literals)) or r"(?!)")
        self._longest = max(map(len, self.literals), default=1) - 1
        self._beginnings = frozenset(one[:length] for one in self.literals for length in range(1, len(one)))

    def find(self, text: str, position: int) -> re.Match[str] | None:
        """The first literal that is whole."""
        return self._pattern.search(text, position)

    def held_from(self, text: str, position: int) -> int:
        """Where the longest end of the text starts that may begin a literal; the text's end where none does."""
        for start in range(max(position, len(text) - self._longest), len(text)):
            if text[start:] in self._beginnings:
                return start
        return len(text)
