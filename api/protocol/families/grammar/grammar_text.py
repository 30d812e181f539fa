"""Writing grammars in llguidance's variant of Lark: rules, literals with marker tokens, and named parts.

Source: the syntax page of llguidance 1.9. A marker token is written by its id, since its letters are ordinary text.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from api.protocol.families.family import NUMBER
from storage.contract import MARKER_SIGN

# One entry of a container's `grammars`, without its `name`.
Part = Mapping[str, object]
FREE_TEXT = "/(?s:.*)/"


class GrammarText:
    """A grammar that is being written.

    ids: of the marker tokens, by their text without MARKER_SIGN
    """

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._ids = ids
        names = sorted(ids, key=len, reverse=True)
        self._marker = re.compile("|".join(f"{MARKER_SIGN}{re.escape(name)}" for name in names) or r"(?!)")
        self._rules: list[str] = []
        self._parts: list[dict[str, object]] = []
        self._num_names = 0
        # Names of rules, terminals and parts by what they say, so that equal ones are one.
        self._named: dict[str, str] = {}

    def name(self, kind: str, *, is_terminal: bool = False) -> str:
        """A new name."""
        self._num_names += 1
        name = f"{kind}_{self._num_names}"
        return name.upper() if is_terminal else name

    def rule(self, kind: str, body: str, *, options: str = "") -> str:
        """The name of a rule with this body, which is added where there is none."""
        return self._added(f"{options}: {body}", kind, is_terminal=False)

    def rule_named(self, name: str, body: str) -> None:
        """Add a rule whose name was made before, as recursion needs it."""
        self._rules.append(f"{name}: {body}")

    def terminal(self, kind: str, body: str) -> str:
        """The name of a terminal with this body, which is added where there is none."""
        return self._added(f": {body}", kind, is_terminal=True)

    def _added(self, body: str, kind: str, *, is_terminal: bool) -> str:
        key = f"{is_terminal}{body}"
        if key not in self._named:
            self._named[key] = self.name(kind, is_terminal=is_terminal)
            self._rules.append(f"{self._named[key]}{body}")
        return self._named[key]

    def part(self, kind: str, part: Part) -> str:
        """The reference to a part of the container, which is added where there is none like it."""
        key = json.dumps(part)
        if key not in self._named:
            self._named[key] = self.name(kind)
            self._parts.append({**part, "name": self._named[key]})
        return f"@{self._named[key]}"

    def literal(self, text: str) -> str:
        """An expression for exactly this text; empty for an empty one."""
        pieces = []
        position = 0
        for found in self._marker.finditer(text):
            pieces += self._letters(text[position : found.start()])
            pieces.append(f"<[{self._ids[found[0].removeprefix(MARKER_SIGN)]}]>")
            position = found.end()
        return " ".join([*pieces, *self._letters(text[position:])])

    def _letters(self, text: str) -> list[str]:
        pieces = text.split(NUMBER)
        letters = [[quoted(piece)] if piece else [] for piece in pieces]
        return [
            one for index, some in enumerate(letters) for one in ([*some] if index == 0 else ["/[0-9]{1,4}/", *some])
        ]

    def is_token(self, text: str) -> bool:
        """Whether the text begins with a marker token, which no ordinary text can hold."""
        return text.startswith(MARKER_SIGN)

    def text_without(self, forbidden: Iterable[str], *, beginning: str = "") -> str:
        """A terminal of any text without these literals. Those that begin with a marker token need no mention.

        beginning: a regular expression of what it does not begin with
        """
        letters = [one for one in forbidden if not self.is_token(one)]
        patterns = [f"(?s:.*){pattern_of(one)}" for one in letters] + [beginning] * bool(beginning)
        return self.terminal("text", FREE_TEXT + "".join(f" & ~/{pattern}(?s:.*)/" for pattern in patterns))

    def text_until(self, end: str, forbidden: Iterable[str] = (), *, beginning: str = "") -> str:
        """An expression for any text, as of `text_without`, and the first `end` behind it."""
        text = self.text_without(forbidden, beginning=beginning)
        if self.is_token(end):
            return f"{text}? {self.literal(end)}"
        # Lazy terminals end at their first match.
        letters = self._marker.split(end)[0]
        body = f"{text} {quoted(letters)}"
        return " ".join(filter(None, [self.rule("until", body, options="[lazy]"), self.literal(end[len(letters) :])]))

    def finished(self, start: str) -> str:
        """The container's JSON text."""
        lark = "\n".join([f"start: {start}", *self._rules, ""])
        return json.dumps({"grammars": [{"lark_grammar": lark}, *self._parts]}, ensure_ascii=False)


def grammar_of_part(part: Part) -> str:
    """The grammar that consists of one part alone."""
    return json.dumps({"grammars": [part]}, ensure_ascii=False)


def quoted(text: str) -> str:
    """A Lark string."""
    return json.dumps(text, ensure_ascii=False)


def pattern_of(text: str) -> str:
    """A regular expression of exactly this text, for use between slashes."""
    return "".join(f"\\{one}" if one in r"\.+*?()|[]{}^$#&-~/" else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    return {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(character, character)


def one_of(alternatives: Sequence[str]) -> str:
    """An expression for one of several; an empty one makes it optional."""
    some = [one for one in alternatives if one]
    group = some[0] if len(some) == 1 else f"({' | '.join(some)})"
    return f"({group})?" if len(some) < len(alternatives) else group
