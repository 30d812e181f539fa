"""Constraints that a request brings: schemas and grammars as they were sent, and what their judgment gives."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from storage.errors import InvalidFunctionParameters, InvalidGrammar, InvalidJsonSchema, InvalidRequest

# Of one schema; of one regular expression, grammar or list of choices; of all constraints of a request.
MAX_SCHEMA_BYTES = 256 * 1024
MAX_GRAMMAR_BYTES = 128 * 1024
MAX_TOTAL_BYTES = 1024 * 1024
_MAX_REASON = 600


class ConstraintKind(StrEnum):
    """How the text of a constraint is read.

    SCHEMA:  a JSON schema, as JSON
    CHOICE:  a list of strings, as JSON
    REGEX:   a regular expression of Rust for a whole text
    LARK:    a grammar in llguidance's Lark
    GRAMMAR: a grammar in Lark, or in GBNF, which writes `::=`
    """

    SCHEMA = "schema"
    CHOICE = "choice"
    REGEX = "regex"
    LARK = "lark"
    GRAMMAR = "grammar"


class Constraint(msgspec.Struct, frozen=True, kw_only=True):
    """One schema or grammar of a request.

    param:     the field that errors name, as it was spelt; unique in its request
    title:     what error messages call it: `response_format 'person'`, `function 'weather'`
    text:      see `ConstraintKind`
    is_strict: whether what cannot be enforced refuses it; otherwise that is left out and named
    is_tool:   whether it constrains a tool's input and not the answer
    """

    param: str
    title: str
    kind: ConstraintKind
    text: str
    is_strict: bool = True
    is_tool: bool = False


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint that compiles.

    part:       its grammar, an entry of llguidance's `grammars` without a name, as JSON text
    unenforced: keywords that it does not enforce, each once
    """

    part: str
    unenforced: tuple[str, ...] = ()

    @property
    def grammar_part(self) -> dict[str, object]:
        """The part as a JSON value."""
        return msgspec.json.decode(self.part, type=dict[str, object])


class ConstraintRefused(Exception):
    """A constraint that does not compile; the message says why, to its author."""


def refusal_error(constraint: Constraint, reason: str) -> InvalidRequest:
    """The error to raise for a constraint that is refused."""
    reason = reason if len(reason) <= _MAX_REASON else reason[:_MAX_REASON] + "..."
    if constraint.kind is not ConstraintKind.SCHEMA:
        noun = "regex" if constraint.kind is ConstraintKind.REGEX else "grammar"
        return InvalidGrammar(f"Invalid {noun} for {constraint.title}: {reason}.", param=constraint.param)
    error = InvalidFunctionParameters if constraint.is_tool else InvalidJsonSchema
    return error(f"Invalid schema for {constraint.title}: {reason}.", param=constraint.param)


def refuse_large(constraints: Sequence[Constraint]) -> None:
    """Raise the error of the first constraint that is too large by itself, or with those before it."""
    total = 0
    for constraint in constraints:
        limit = MAX_SCHEMA_BYTES if constraint.kind is ConstraintKind.SCHEMA else MAX_GRAMMAR_BYTES
        size = len(constraint.text.encode())
        total += size
        if size > limit:
            raise refusal_error(constraint, f"it has {size} bytes, more than {limit}")
        if total > MAX_TOTAL_BYTES:
            raise refusal_error(constraint, f"the schemas and grammars of the request exceed {MAX_TOTAL_BYTES} bytes")


def unenforced_of(judged: Mapping[str, Judged]) -> tuple[str, ...]:
    """The keywords that a request's constraints do not enforce, each once."""
    return tuple(dict.fromkeys(name for one in judged.values() for name in one.unenforced))
