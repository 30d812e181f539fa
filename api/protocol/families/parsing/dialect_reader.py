"""Reader of arguments in dialects of JSON: Gemma's braces with bare keys, and keyword arguments of Python."""

import json
import re
from collections.abc import Mapping
from enum import Enum, auto

from api.protocol.families.family import ArgumentForm, CallForm
from storage.contract import MARKER_SIGN

_MAX_SCALAR = 256
_MAX_DEPTH = 64
_WORDS: Mapping[str, str] = {"True": "true", "False": "false", "None": "null"}
_ESCAPES: Mapping[str, str] = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0"}
_HEX_DIGITS: Mapping[str, int] = {"x": 2, "u": 4, "U": 8}
_CLOSERS: Mapping[str, str] = {"{": "}", "[": "]", "(": ")"}


class _Expect(Enum):
    KEY = auto()
    COLON = auto()
    VALUE = auto()
    NEXT = auto()


class DialectReader:
    """Arguments in a dialect, made JSON on the way; strings as they come.

    The outermost container is `{...}`, which is read whole, or the argument list of a Python call, whose closing
    parenthesis is left unread.
    """

    def __init__(self, form: CallForm) -> None:
        self.is_done = self.is_broken = False
        self._is_python = form.arguments is ArgumentForm.PYTHON
        self._quotes = ("'", '"') if self._is_python else (form.quote, '"')
        # The closers of the open containers, in the dialect; a list of arguments has ")".
        self._stack: list[str] = []
        self._expect = _Expect.KEY
        # Whether a comma was read that is written before the next element, if there is one.
        self._has_comma = False
        self._has_begun = False
        # The delimiter of the string that is being read, and whether it is a key.
        self._quote: str | None = None
        self._is_key = False
        self._scalar = re.compile(rf"[^\s{{}}\[\](),:='\"{MARKER_SIGN}]+")

    def read(self, text: str, position: int, out: list[str]) -> int:
        if not self._has_begun and self._is_python:
            self._open(")", out)
        while position < len(text) and not self.is_done and not self.is_broken:
            reached = self._step(text, position, out)
            if reached == position and not self.is_done:
                break
            position = reached
        return position

    def _open(self, closer: str, out: list[str]) -> None:
        self._has_begun = True
        self._stack.append(closer)
        self.is_broken = len(self._stack) > _MAX_DEPTH
        is_object = closer == "}" or len(self._stack) == 1
        out.append("{" if is_object else "[")
        self._expect = _Expect.KEY if is_object else _Expect.VALUE

    def _step(self, text: str, position: int, out: list[str]) -> int:
        """Read one lexical unit, or as much of a string as is there; `position` where more text is needed."""
        if self._quote is not None:
            return self._read_string(text, position, out)
        char = text[position]
        if char.isspace():
            return position + 1
        if not self._has_begun:
            self.is_broken = char != "{"
            if not self.is_broken:
                self._open("}", out)
            return position + 1
        if self._expect is _Expect.COLON:
            return self._read_colon(char, position, out)
        if char == self._stack[-1]:
            return self._close(position, out)
        if self._expect is _Expect.NEXT:
            return self._read_comma(char, position)
        if self._has_comma:
            self._has_comma = False
            out.append(", ")
        if self._expect is _Expect.VALUE and char in _CLOSERS and (char != "(" or self._is_python):
            self._open(_CLOSERS[char], out)
            return position + 1
        return self._read_string_or_scalar(text, position, out)

    def _close(self, position: int, out: list[str]) -> int:
        if self._expect is _Expect.VALUE and self._top_is_object:
            self.is_broken = True
            return position
        is_last = len(self._stack) == 1
        out.append("}" if self._top_is_object else "]")
        self._stack.pop()
        self._expect, self._has_comma = _Expect.NEXT, False
        self.is_done = is_last
        return position if is_last and self._is_python else position + 1

    @property
    def _top_is_object(self) -> bool:
        return self._stack[-1] == "}" or len(self._stack) == 1

    def _read_comma(self, char: str, position: int) -> int:
        if char != ",":
            self.is_broken = True
            return position
        self._expect = _Expect.KEY if self._top_is_object else _Expect.VALUE
        self._has_comma = True
        return position + 1

    def _read_colon(self, char: str, position: int, out: list[str]) -> int:
        is_argument = self._is_python and len(self._stack) == 1
        self.is_broken = char != ("=" if is_argument else ":")
        if self.is_broken:
            return position
        out.append(": ")
        self._expect = _Expect.VALUE
        return position + 1

    def _read_string_or_scalar(self, text: str, position: int, out: list[str]) -> int:
        for quote in self._quotes:
            if text.startswith(quote, position):
                self._quote, self._is_key = quote, self._expect is _Expect.KEY
                out.append('"')
                return position + len(quote)
            if quote.startswith(text[position:]):
                return position
        scalar = self._scalar.match(text, position)
        if scalar is None or len(scalar[0]) > _MAX_SCALAR:
            self.is_broken = True
            return position
        if scalar.end() == len(text):
            return position
        if self._expect is _Expect.KEY:
            out.append(json.dumps(scalar[0], ensure_ascii=False))
            self._expect = _Expect.COLON
        else:
            word = _WORDS.get(scalar[0], scalar[0])
            out.append(word if _is_json(word) else json.dumps(word, ensure_ascii=False))
            self._expect = _Expect.NEXT
        return scalar.end()

    def _read_string(self, text: str, position: int, out: list[str]) -> int:
        quote = self._quote
        assert quote is not None
        end, found = self._string_end(text, position, quote)
        out.append(json.dumps(text[position:end].replace(MARKER_SIGN, ""), ensure_ascii=False)[1:-1])
        if not found:
            return self._read_escape(text, end, out) if end < len(text) and text[end] == "\\" else end
        out.append('"')
        self._expect = _Expect.COLON if self._is_key else _Expect.NEXT
        self._quote = None
        return end + len(quote)

    def _string_end(self, text: str, position: int, quote: str) -> tuple[int, bool]:
        """Where the certain part of the string ends, and whether its closing quote is there."""
        end = text.find(quote, position)
        if self._has_escapes:
            backslash = text.find("\\", position, len(text) if end < 0 else end)
            if backslash >= 0:
                return backslash, False
        if end >= 0:
            return end, True
        for start in range(max(position, len(text) - len(quote) + 1), len(text)):
            if quote.startswith(text[start:]):
                return start, False
        return len(text), False

    @property
    def _has_escapes(self) -> bool:
        return self._is_python or self._quote == '"'

    def _read_escape(self, text: str, position: int, out: list[str]) -> int:
        """Read an escape sequence of a string; `position` where it is not whole."""
        if position + 1 >= len(text):
            return position
        kind = text[position + 1]
        num_digits = _HEX_DIGITS.get(kind, 0)
        end = position + 2 + num_digits
        if end > len(text):
            return position
        if num_digits:
            out.append(_escaped_code(text[position + 2 : end], text[position:end]))
        elif kind in _ESCAPES:
            out.append(json.dumps(_ESCAPES[kind])[1:-1])
        elif kind != "\n":
            out.append(json.dumps(kind if kind in "\\'\"/" else f"\\{kind}", ensure_ascii=False)[1:-1])
        return end


def _escaped_code(digits: str, whole: str) -> str:
    """The JSON text of a character by its number; surrogates stay escapes, since they come in pairs."""
    try:
        code = int(digits, 16)
        character = chr(code)
    except ValueError:
        return json.dumps(whole, ensure_ascii=False)[1:-1]
    return json.dumps(character, ensure_ascii=0xD800 <= code < 0xE000)[1:-1]


def _is_json(word: str) -> bool:
    if word in ("true", "false", "null"):
        return True
    return re.fullmatch(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", word) is not None
