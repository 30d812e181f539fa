"""Random JSON schemas of the keywords that constrained decoding enforces."""

import random

from api.protocol.structured import compiling
from api.protocol.structured.judging import judge_schema

_NAMES = ("a", "id", "name", "größe", "x y", "tags")
_FORMATS = ("uuid", "ipv4", "email", "date", "time", "date-time")
_PATTERNS = ("^[a-f]{2,5}$", "^(yes|no)$", r"^\d{3}-[A-Z]+$")


def random_schema(dice: random.Random, depth: int = 3) -> dict[str, object]:
    """An object with random properties; all values are bounded, so that a random model comes to their end."""
    return _object(dice, depth)


def grammar_of(schema: dict[str, object]) -> str:
    """The schema's grammar, as the API makes it."""
    return compiling.grammar_of(judge_schema(schema, is_strict=True).grammar_part)


def _value(dice: random.Random, depth: int) -> dict[str, object]:
    kinds = [_string, _number, _constant, _string, _number]
    if depth > 0:
        kinds += [_object, _array, _any_of, _all_of]
    return dice.choice(kinds)(dice, depth - 1)


def _object(dice: random.Random, depth: int) -> dict[str, object]:
    names = dice.sample(_NAMES, dice.randint(0, 4))
    return {
        "type": "object",
        "properties": {name: _value(dice, depth) for name in names},
        "required": [name for name in names if dice.random() < 0.7],
        "additionalProperties": False,
    }


def _array(dice: random.Random, depth: int) -> dict[str, object]:
    least = dice.randint(0, 2)
    schema: dict[str, object] = {"type": "array", "minItems": least, "maxItems": least + dice.randint(0, 2)}
    if dice.random() < 0.3:
        return schema | {"prefixItems": [_value(dice, depth) for _ in range(least)], "items": _value(dice, depth)}
    return schema | {"items": _value(dice, depth)}


def _string(dice: random.Random, depth: int) -> dict[str, object]:
    kind = dice.randrange(4)
    if kind == 0:
        return {"type": "string", "pattern": dice.choice(_PATTERNS)}
    if kind == 1:
        return {"type": "string", "format": dice.choice(_FORMATS)}
    least = dice.randint(0, 4)
    return {"type": "string", "minLength": least, "maxLength": least + dice.randint(0, 12)}


def _number(dice: random.Random, depth: int) -> dict[str, object]:
    least = dice.randint(-50, 50)
    kind = dice.choice(("integer", "integer", "number", "boolean", "null"))
    if kind in ("boolean", "null"):
        return {"type": kind}
    schema: dict[str, object] = {"type": kind, "minimum": least, "maximum": least + dice.randint(1, 500)}
    return schema | {"multipleOf": 5} if kind == "integer" and dice.random() < 0.2 else schema


def _constant(dice: random.Random, depth: int) -> dict[str, object]:
    values = dice.sample(["red", "green", 7, -1, None, True, "two words", 'a "quote"'], 3)
    return {"enum": values} if dice.random() < 0.7 else {"const": values[0]}


def _any_of(dice: random.Random, depth: int) -> dict[str, object]:
    return {"anyOf": [_value(dice, depth) for _ in range(2)]}


def _all_of(dice: random.Random, depth: int) -> dict[str, object]:
    """A range that two of them leave together."""
    least = dice.randint(-50, 50)
    return {"allOf": [{"type": "integer", "minimum": least}, {"maximum": least + 99}]}
