"""Regular expressions in schemas: those that the compiler reads in another way than JSON Schema, without saying so."""

import re

# In a class of characters, Rust's `[`, `&&`, `--` and `~~` make sets of sets; in ECMA 262 they are characters.
_SET_OPERATOR = re.compile(r"\[|&&|--|~~")
_TOKEN = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|[xuU]\{[0-9a-fA-F]*\}|.)|\[\^?\]?|\]|[^\\\[\]]+", re.DOTALL)
# Control characters that JSON has no short escape for; answers do not hold them.
UNWRITTEN = re.compile("[\x00-\x07\x0b\x0e-\x1f\x7f]")
_ESCAPE = re.compile(r"\\(?:[av]|[xuU]\{?([0-9a-fA-F]+)\}?)", re.DOTALL)


def is_read_alike(pattern: str) -> bool:
    """Whether a pattern means the same to the compiler, as far as it is accepted.

    Its classes hold no set operators. It names no character that answers cannot hold, except to exclude it: where the
    compiler removes such a character from a sequence, it would accept the rest.
    """
    is_in_class = is_excluding = False
    for token in _TOKEN.findall(pattern):
        if not (is_in_class and is_excluding) and _is_unwritten(token):
            return False
        if not is_in_class:
            is_in_class, is_excluding = token.startswith("["), token.startswith("[^")
        elif token == "]":
            is_in_class = False
        elif not token.startswith("\\") and _SET_OPERATOR.search(token):
            return False
    return True


def _is_unwritten(token: str) -> bool:
    escape = _ESCAPE.fullmatch(token)
    if escape is None:
        return UNWRITTEN.search(token) is not None
    # \a and \v are such characters themselves.
    return escape[1] is None or (int(escape[1], 16) < 128 and UNWRITTEN.match(chr(int(escape[1], 16))) is not None)
