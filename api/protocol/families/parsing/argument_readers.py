"""Readers of the arguments of a call: from the form of the family to the text of a JSON object, piece by piece."""

import json
import re
from collections.abc import Mapping
from typing import Protocol

from api.protocol.families.family import CallForm, Tags
from api.protocol.families.literal_words import IMPOSSIBLE, UNDECIDED, Finder, match_words, words_of
from api.protocol.families.value_casts import json_of, types_of
from storage.contract import MARKER_SIGN

_MAX_KEY = 256
_STRING = frozenset({"string"})


class ArgumentReader(Protocol):
    """Reads the arguments of one call.

    is_done:   whether the object is complete
    is_broken: whether the text is no such object; what was read so far has been given
    """

    is_done: bool
    is_broken: bool

    def read(self, text: str, position: int, out: list[str]) -> int:
        """Read on from `position`, add the JSON text that became certain to `out`; returns the position reached."""


class JsonReader:
    """Arguments that are JSON already: given exactly as they were written, from the first brace to its partner."""

    _OUTSIDE = re.compile(r'[^"{}\[\]0-9a-zA-Z+\-.,:\s]|["{}\[\]]')
    _INSIDE = re.compile(rf'["\\{MARKER_SIGN}]')

    def __init__(self) -> None:
        self.is_done = self.is_broken = False
        self._depth = 0
        self._is_in_string = self._is_escaped = False

    def read(self, text: str, position: int, out: list[str]) -> int:
        if self._depth == 0:
            while position < len(text) and text[position].isspace():
                position += 1
            self.is_broken = position < len(text) and text[position] != "{"
        start = position
        while position < len(text) and not self.is_done and not self.is_broken:
            position = self._next_string(text, position) if self._is_in_string else self._next_mark(text, position)
        out.append(text[start:position])
        return position

    def _next_mark(self, text: str, position: int) -> int:
        """Read to behind the next quotation mark, brace or bracket outside of strings."""
        found = self._OUTSIDE.search(text, position)
        if found is None:
            return len(text)
        match found[0]:
            case '"':
                self._is_in_string = True
            case "{" | "[":
                self._depth += 1
            case "}" | "]":
                self._depth -= 1
                self.is_done = self._depth == 0
            case _:
                self.is_broken = True
                return found.start()
        return found.end()

    def _next_string(self, text: str, position: int) -> int:
        """Read to behind the end of the string, or a backslash, or the character behind one."""
        if self._is_escaped and text[position] != MARKER_SIGN:
            self._is_escaped = False
            return position + 1
        found = self._INSIDE.search(text, position)
        if found is None:
            return len(text)
        match found[0]:
            case '"':
                self._is_in_string = False
            case "\\":
                self._is_escaped = True
            case _:
                # A marker token is never part of a string.
                self.is_broken = True
                return found.start()
        return found.end()


class TaggedReader:
    """Arguments as tags, made JSON on the way: strings as they come, other values at their end by the tool's schema."""

    def __init__(self, form: CallForm, parameters: Mapping[str, object]) -> None:
        """parameters: the tool's schema"""
        assert form.tags is not None
        self.is_done = self.is_broken = False
        self._tags: Tags = form.tags
        self._parameters = parameters
        properties = parameters.get("properties")
        self._properties: Mapping[str, object] = properties if isinstance(properties, Mapping) else {}
        self._before_key, self._end = words_of(form.tags.before_key), words_of(form.tail or form.closing)
        before_value = words_of(form.tags.before_value)
        self._key = re.compile(rf"[^\n<>\"{MARKER_SIGN}]{{1,{_MAX_KEY}}}")
        self._before_value = before_value
        self._after_value = words_of(form.tags.after_value)[0]
        # One line break on either side belongs to the tags where the family writes one.
        newline = "\n" if form.tags.after_value.startswith("\n") else ""
        self._closing = Finder([newline + self._after_value, self._after_value] if newline else [self._after_value])
        self._num_parameters = 0
        # The types of the value that is being read; None between values.
        self._types: frozenset[str] | None = None
        self._pieces: list[str] = []

    def read(self, text: str, position: int, out: list[str]) -> int:
        while position < len(text) and not self.is_done and not self.is_broken:
            step = self._read_tags if self._types is None else self._read_value
            reached = step(text, position, out)
            if reached == position:
                break
            position = reached
        return position

    def _read_tags(self, text: str, position: int, out: list[str]) -> int:
        """Read the tags before the next value, or find the end of the arguments, which is left unread."""
        end = match_words(text, position, self._end)
        if end >= 0:
            out.append("}" if self._num_parameters else "{}")
            self.is_done = True
            return position
        reached = self._match_tags(text, position)
        if reached == IMPOSSIBLE and end == IMPOSSIBLE:
            self.is_broken = True
        if reached < 0:
            return position
        out.append(f"{', ' if self._num_parameters else '{'}{json.dumps(self._name, ensure_ascii=False)}: ")
        self._num_parameters += 1
        self._types = types_of(self._properties.get(self._name), self._parameters)
        if self._types == _STRING:
            out.append('"')
        return reached

    def _match_tags(self, text: str, position: int) -> int:
        """The position of the value whose tags stand at `position`, and its name; IMPOSSIBLE or UNDECIDED."""
        start = match_words(text, position, self._before_key)
        if start < 0:
            return start
        key = self._key.match(text, start)
        if key is None:
            return UNDECIDED if start == len(text) else IMPOSSIBLE
        if key.end() == len(text):
            return UNDECIDED
        end = match_words(text, key.end(), self._before_value)
        if end < 0:
            return end
        if self._tags.before_value.endswith("\n"):
            if end == len(text):
                return UNDECIDED
            end += text[end] == "\n"
        self._name = key[0].strip()
        return end

    def _read_value(self, text: str, position: int, out: list[str]) -> int:
        found = self._closing.find(text, position)
        end = self._closing.held_from(text, position) if found is None else found.start()
        self._take(text[position:end], out)
        if found is None:
            return end
        if self._types == _STRING:
            out.append('"')
        else:
            out.append(json_of("".join(self._pieces), self._types or _STRING))
            self._pieces.clear()
        self._types = None
        return found.end()

    def _take(self, piece: str, out: list[str]) -> None:
        if self._types != _STRING:
            self._pieces.append(piece.replace(MARKER_SIGN, ""))
        elif piece:
            out.append(json.dumps(piece.replace(MARKER_SIGN, ""), ensure_ascii=False)[1:-1])
