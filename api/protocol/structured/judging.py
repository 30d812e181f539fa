"""The judgment of a constraint: its grammar part, with what of a schema is enforced, or the reason of its refusal."""

import json
import re
from collections.abc import Callable, Iterator

import msgspec
from llguidance import LLMatcher
from llguidance.gbnf_to_lark import GbnfToLarkError, any_to_lark

from api.protocol.structured.compiling import grammar_of, names_tokens, refusal_of
from api.protocol.structured.constraints import Constraint, ConstraintKind, ConstraintRefused, Judged
from api.protocol.structured.schemas.finite import has_finite_value
from api.protocol.structured.schemas.normal_form import NormalForm
from api.protocol.structured.schemas.reading import Schema, SchemaRefused
from storage.contract import MARKER_SIGN

# At most one space after a comma or a colon. A longer space cannot be written, so that none is written for ever.
# Without the escape \u, no name that a schema declares can be written a second time with other escapes.
_JSON_OPTIONS = {
    "item_separator": ", ?",
    "key_separator": ": ?",
    "whitespace_flexible": False,
    "json_allowed_escapes": 'nrbtf\\"',
}
_UNSATISFIABLE = "Unsatisfiable"
# U+FDD0 by itself and as JSON, Lark and regular expressions escape it: workers keep it for markers.
_MARKER_SIGN = re.compile(rf"{MARKER_SIGN}|\\u\{{?0*fdd0", re.IGNORECASE)
# The attribute of a rule, between its name and its colon, by which some programs set the temperature of its tokens.
_RULE_TEMPERATURE = re.compile(r"^[ \t]*[?!]?\w[\w.]*[ \t]*\[[^\]]*\btemperature[ \t]*=", re.MULTILINE)


def judge(constraint: Constraint) -> Judged:
    """The constraint as a grammar part that compiles; raises ConstraintRefused.

    It may take seconds, or end the process by an overflow of its stack: see `api/protocol/checking`.
    """
    if _MARKER_SIGN.search(constraint.text) is not None:
        raise ConstraintRefused("it holds the noncharacter U+FDD0, which no answer can hold")
    if constraint.kind is ConstraintKind.SCHEMA:
        return judge_schema(_json_of(constraint.text), is_strict=constraint.is_strict)
    lark = _lark_of(constraint.kind, constraint.text)
    if constraint.kind in (ConstraintKind.LARK, ConstraintKind.GRAMMAR) and _RULE_TEMPERATURE.search(lark) is not None:
        raise ConstraintRefused("its rules set a 'temperature', which is a field of the request here")
    part: dict[str, object] = {"lark_grammar": lark}
    refusal = refusal_of(grammar_of(part))
    if refusal is not None:
        raise ConstraintRefused(refusal)
    if names_tokens(grammar_of(part)):
        raise ConstraintRefused("it names tokens of a vocabulary, which a request may not")
    return Judged(part=_text_of(part))


def judge_schema(document: object, *, is_strict: bool) -> Judged:
    """The grammar part of a schema; raises ConstraintRefused.

    is_strict: whether a keyword that cannot be enforced refuses the schema; otherwise it is left out and named
    """
    reason: str | None = None
    try:
        for form in _forms(document):
            root = form.read()
            if is_strict and form.findings.unenforced:
                raise ConstraintRefused(form.findings.unenforced[0].sentence)
            if not has_finite_value(root):
                raise ConstraintRefused("no finite value fits it")
            part = schema_part(root)
            refusal = refusal_of(grammar_of(part))
            if refusal is None:
                return Judged(part=_text_of(part), unenforced=form.findings.names)
            reason = reason or refusal
            if _UNSATISFIABLE in refusal:
                break
    except SchemaRefused as error:
        raise ConstraintRefused(str(error)) from error
    raise ConstraintRefused(reason or "it cannot be compiled")


def _forms(document: object) -> Iterator[NormalForm]:
    """The readings to try, one after another, while the compiler refuses them: each leaves more out."""
    yield NormalForm(document)
    yield NormalForm(document, compiles=_compiles)
    yield NormalForm(document, compiles=_compiles, intersects=False)


def _compiles(schema: Schema) -> bool:
    refusal = refusal_of(grammar_of(schema_part(schema)))
    return refusal is None or _UNSATISFIABLE in refusal


def schema_part(root: Schema) -> dict[str, object]:
    """The grammar part of a schema in normal form."""
    if root is False:
        raise ConstraintRefused("no value fits it")
    return {"json_schema": {"x-guidance": _JSON_OPTIONS, **(root if isinstance(root, dict) else {})}}


def _json_of(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConstraintRefused("it is not JSON") from error


def _text_of(part: dict[str, object]) -> str:
    return json.dumps(part, ensure_ascii=False, separators=(",", ":"))


def _lark_of(kind: ConstraintKind, text: str) -> str:
    """The Lark text of any other kind of constraint."""
    if kind is ConstraintKind.REGEX:
        grammars = msgspec.json.decode(LLMatcher.grammar_from_regex(text))["grammars"]
        return str(grammars[0]["lark_grammar"])
    if kind is ConstraintKind.CHOICE:
        choices = dict.fromkeys(msgspec.json.decode(text, type=list[str]))
        return "start: " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
    if kind is ConstraintKind.GRAMMAR and "::=" in text:
        return _translated(any_to_lark, text)
    return text


def _translated(translate: Callable[[str], str], text: str) -> str:
    try:
        return translate(text)
    except RecursionError as error:
        raise ConstraintRefused("it is nested too deeply") from error
    except (GbnfToLarkError, ValueError) as error:
        raise ConstraintRefused(str(error).partition("\n")[0]) from error
