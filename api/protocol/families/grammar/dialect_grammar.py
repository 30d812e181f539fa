"""The grammar of arguments in dialects of JSON (Gemma 4, Python), from the tool's schema.

Enforced are types, enumerations, required properties, arrays' items and unions. Bounds of numbers and lengths, patterns
and formats are not.
"""

import json
from collections.abc import Mapping, Sequence
from typing import cast

from api.protocol.families.family import ArgumentForm, CallForm
from api.protocol.families.grammar.grammar_text import GrammarText, one_of, quoted
from api.protocol.families.value_casts import resolved

_INTEGER = r"/-?(0|[1-9][0-9]{0,17})/"
_NUMBER = r"/-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?/"
_PYTHON_STRING = r'/"([^"\\\n]|\\["\\nrt])*"/'
_ALL_TYPES = ("string", "number", "boolean", "null", "array", "object")
_MAX_DEPTH = 12


class DialectWriter:
    """Writes the arguments of one tool."""

    def __init__(self, grammar: GrammarText, form: CallForm, parameters: Mapping[str, object]) -> None:
        self._grammar = grammar
        self._form = form
        self._root = parameters
        self._is_python = form.arguments is ArgumentForm.PYTHON
        self._comma = quoted(", " if self._is_python else ",")
        # Rules of references, so that a recursive schema makes a recursive grammar.
        self._references: dict[str, str] = {}
        self._any: str | None = None

    def arguments(self) -> str:
        """The whole object, or the arguments between the parentheses of a Python call."""
        pairs = self._pairs(self._root, is_call=True)
        return pairs if self._is_python else f'"{{" {pairs} "}}"'

    def _value(self, schema: object, depth: int = 0) -> str:
        """An expression for a value of the schema."""
        if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
            return self._any_value()
        reference = schema.get("$ref")
        if isinstance(reference, str):
            return self._referenced(reference, schema, depth)
        for union in ("anyOf", "oneOf"):
            if isinstance(schema.get(union), list):
                return one_of([self._value(one, depth + 1) for one in cast(list[object], schema[union])])
        values = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if isinstance(values, list):
            return one_of([self._constant(one) for one in values])
        declared = schema.get("type")
        types = [declared] if isinstance(declared, str) else declared
        if not isinstance(types, list):
            types = ["object"] if "properties" in schema else ["array"] if "items" in schema else []
        return one_of([self._typed(one, schema, depth) for one in types]) if types else self._any_value()

    def _referenced(self, reference: str, schema: object, depth: int) -> str:
        if reference not in self._references:
            name = self._references[reference] = self._grammar.name("reference")
            self._grammar.rule_named(name, self._value(resolved(schema, self._root), depth + 1))
        return self._references[reference]

    def _typed(self, type_name: object, schema: Mapping[str, object], depth: int) -> str:
        match type_name:
            case "string":
                return self._string()
            case "integer":
                return _INTEGER
            case "number":
                return _NUMBER
            case "boolean":
                return '("True" | "False")' if self._is_python else '("true" | "false")'
            case "null":
                return '"None"' if self._is_python else '"null"'
            case "array":
                item = self._grammar.rule("item", self._value(schema.get("items"), depth + 1))
                return f'"[" ({item} ({self._comma} {item})*)? "]"'
            case "object":
                return f'"{{" {self._pairs(schema, depth=depth + 1)} "}}"'
            case _:
                return self._any_value()

    def _string(self) -> str:
        if self._is_python:
            return _PYTHON_STRING
        quote = self._form.quote
        return f"{self._grammar.literal(quote)} {self._grammar.text_until(quote)}"

    def _constant(self, value: object) -> str:
        if isinstance(value, str):
            if self._is_python:
                return quoted(json.dumps(value, ensure_ascii=False))
            return self._grammar.literal(f"{self._form.quote}{value}{self._form.quote}")
        text = json.dumps(value, ensure_ascii=False)
        return quoted({"true": "True", "false": "False", "null": "None"}.get(text, text) if self._is_python else text)

    def _any_value(self) -> str:
        if self._any is None:
            self._any = self._grammar.name("value")
            free: Mapping[str, object] = {"items": True}
            self._grammar.rule_named(self._any, one_of([self._typed(one, free, 0) for one in _ALL_TYPES]))
        return self._any

    def _pairs(self, schema: Mapping[str, object], *, is_call: bool = False, depth: int = 0) -> str:
        """An expression for the pairs of an object, in the schema's order."""
        properties = schema.get("properties")
        if not isinstance(properties, Mapping) or not properties:
            is_empty = schema.get("additionalProperties") is False or properties == {}
            return "" if is_empty else self._any_pairs(is_call=is_call)
        required = cast(list[object], schema.get("required") or [])
        pairs = [
            (name in required, self._grammar.rule("pair", f"{self._key(name, is_call)} {self._value(one, depth + 1)}"))
            for name, one in properties.items()
        ]
        return self._in_order(pairs)

    def _in_order(self, pairs: Sequence[tuple[bool, str]]) -> str:
        """Pairs with commas between those that are there."""
        first, rest = "", ""
        for is_required, pair in reversed(pairs):
            begun = f"{pair} {rest}".strip()
            goes_on = f"{self._comma} {begun}"
            if not is_required:
                first = one_of([begun, first])
                rest = self._grammar.rule("rest", one_of([goes_on, rest]))
            else:
                first, rest = begun, self._grammar.rule("rest", goes_on)
            first = self._grammar.rule("first", first)
        return first

    def _key(self, name: str, is_call: bool) -> str:
        if self._is_python:
            return quoted(f"{name}=") if is_call else quoted(f'"{name}": ')
        return quoted(f"{name}:")

    def _any_pairs(self, *, is_call: bool) -> str:
        key = "/[A-Za-z_][A-Za-z0-9_]{0,63}/"
        before = (
            f'{key} "="'
            if self._is_python and is_call
            else f'{_PYTHON_STRING} ": "'
            if self._is_python
            else f'{key} ":"'
        )
        pair = self._grammar.rule("pair", f"{before} {self._any_value()}")
        return f"({pair} ({self._comma} {pair})*)?"
