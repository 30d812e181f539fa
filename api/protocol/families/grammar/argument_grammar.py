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


def arguments_of(grammar: GrammarText, form: CallForm, part: Part | None, parameters: Mapping[str, object]) -> str:
    """An expression for the arguments of a tool.

    part:       their grammar as JSON
    parameters: their schema
    """
    match form.arguments:
        case ArgumentForm.JSON:
            return grammar.part("arguments", part or _ANY_OBJECT)
        case ArgumentForm.TAGGED:
            return _TaggedWriter(grammar, form, parameters).arguments()
        case _:
            return DialectWriter(grammar, form, parameters).arguments()


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
            whole = {**schema, **({"$defs": self._schema["$defs"]} if "$defs" in self._schema else {})}
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
