"""The grammar of a call's arguments in each form; from the tool's schema where they are not JSON."""

import json
from collections.abc import Mapping
from typing import cast

from api.protocol.families.family import ArgumentForm, CallForm
from api.protocol.families.grammar.dialect_grammar import DialectWriter
from api.protocol.families.grammar.grammar_text import GrammarText, Part, pattern_of
from api.protocol.families.literal_words import words_of
from api.protocol.families.value_casts import resolved, types_of

_ANY_OBJECT: Part = {"json_schema": {"type": "object"}}
_STRING = frozenset({"string"})
# llguidance's own key in a schema; its options hold for the parts that are taken out, too.
_OPTIONS = "x-guidance"
# Keywords that the forms other than JSON leave to the model.
_OF_STRINGS = frozenset({"pattern", "format"})
_OF_DIALECTS = _OF_STRINGS | {
    "exclusiveMaximum",
    "exclusiveMinimum",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "patternProperties",
    "prefixItems",
}


def arguments_of(grammar: GrammarText, form: CallForm, part: Part | None) -> str:
    """An expression for the arguments of a tool.

    part: their grammar as JSON; None is any object
    """
    part = part or _ANY_OBJECT
    match form.arguments:
        case ArgumentForm.JSON:
            return grammar.part("arguments", part)
        case ArgumentForm.TAGGED:
            return _TaggedWriter(grammar, form, _schema_of(part)).arguments()
        case _:
            return DialectWriter(grammar, form, _schema_of(part)).arguments()


def unenforced_in(form: CallForm, part: Part) -> tuple[str, ...]:
    """Keywords of a tool's schema that this form of arguments does not enforce, each once."""
    match form.arguments:
        case ArgumentForm.JSON:
            return ()
        case ArgumentForm.TAGGED:
            properties = _schema_of(part).get("properties")
            schemas = list(properties.values()) if isinstance(properties, Mapping) else []
            some = [one for one in schemas if isinstance(one, Mapping) and "string" in types_of(one, _schema_of(part))]
            return tuple(sorted({key for one in some for key in one} & _OF_STRINGS))
        case _:
            return tuple(sorted(_keys_in(_schema_of(part)) & _OF_DIALECTS))


def _schema_of(part: Part) -> Mapping[str, object]:
    schema = part.get("json_schema")
    return schema if isinstance(schema, Mapping) else {}


def _keys_in(value: object) -> set[str]:
    if isinstance(value, Mapping):
        return set(value) | {key for one in value.values() for key in _keys_in(one)}
    return {key for one in value for key in _keys_in(one)} if isinstance(value, list) else set()


class _TaggedWriter:
    """Writes the parameters of one tool as tags, in the order of its schema."""

    def __init__(self, grammar: GrammarText, form: CallForm, parameters: Mapping[str, object]) -> None:
        assert form.tags is not None
        self._grammar = grammar
        self._tags = form.tags
        self._schema = parameters

    def arguments(self) -> str:
        """Each parameter at most once; those that are required must be there."""
        properties = self._schema.get("properties")
        if not isinstance(properties, Mapping) or not properties:
            return (
                "" if self._schema.get("additionalProperties") is False or properties == {} else self._any_parameters()
            )
        required = cast(list[object], self._schema.get("required") or [])
        one = [(name in required, self._parameter(name, schema)) for name, schema in properties.items()]
        return " ".join(rule if is_required else f"{rule}?" for is_required, rule in one)

    def _any_parameters(self) -> str:
        before = self._grammar.literal(self._tags.before_key)
        middle = self._grammar.literal(self._tags.before_value)
        return self._grammar.rule("any", f"{before} /[A-Za-z0-9_-]{{1,64}}/ {middle} {self._free_string()}") + "*"

    def _parameter(self, name: str, schema: object) -> str:
        before = self._grammar.literal(self._tags.before_key + name + self._tags.before_value)
        return self._grammar.rule("parameter", f"{before} {self._value(schema)}")

    def _value(self, schema: object) -> str:
        schema = resolved(schema, self._schema)
        types = types_of(schema, self._schema)
        if "string" not in types and isinstance(schema, Mapping):
            shared = {key: self._schema[key] for key in (_OPTIONS, "$defs") if key in self._schema}
            whole = {**shared, **schema}
            part = self._grammar.part("value", {"json_schema": whole})
            return f"{part} {self._grammar.literal(self._tags.after_value)}"
        fixed = self._fixed(schema) if types == _STRING and isinstance(schema, Mapping) else None
        return fixed or self._free_string()

    def _fixed(self, schema: Mapping[str, object]) -> str | None:
        """Strings of a list, or of a bounded length; None for others."""
        after = self._grammar.literal(self._tags.after_value)
        values = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if isinstance(values, list):
            return (
                f"({' | '.join(json.dumps(one, ensure_ascii=False) for one in values if isinstance(one, str))}) {after}"
            )
        low, high = schema.get("minLength", 0), schema.get("maxLength", "")
        if not low and high == "":
            return None
        closing = words_of(self._tags.after_value)[0]
        newline = "\\n" if self._tags.after_value.startswith("\n") else ""
        text = f"/(?s:.{{{low},{high}}})/"
        if self._grammar.is_token(closing):
            return f"{self._grammar.terminal('text', text)} {after}"
        rest = self._tags.after_value.partition(closing)[2]
        # Lazy, so that the text ends at the first closing tag.
        body = f"{text[:-1]}{newline}{pattern_of(closing)}/"
        return " ".join(
            filter(None, [self._grammar.rule("bounded", body, options="[lazy]"), self._grammar.literal(rest)])
        )

    def _free_string(self) -> str:
        """Any text up to the first closing tag, which is where the parser ends it."""
        closing = words_of(self._tags.after_value)[0]
        rest = self._tags.after_value.partition(closing)[2]
        return " ".join(filter(None, [self._grammar.text_until(closing), self._grammar.literal(rest)]))
