"""Schemas and grammars that make a compiler slow, large or crash."""

import json
from collections.abc import Callable

from api.protocol.structured.constraints import Constraint, ConstraintKind


def schema(document: object, *, param: str = "response_format", is_strict: bool = True) -> Constraint:
    """A schema of an answer."""
    return Constraint(
        param=param,
        title=param,
        kind=ConstraintKind.SCHEMA,
        text=json.dumps(document),
        is_strict=is_strict,
        is_tool=param.startswith("tools"),
    )


def lark(text: str) -> Constraint:
    """A grammar."""
    param = "structured_outputs.grammar"
    return Constraint(param=param, title=param, kind=ConstraintKind.LARK, text=text)


def _chain(count: int) -> dict[str, object]:
    links = {f"d{i}": {"properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(count)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{count}": True}}


def _rules(count: int, rule: str) -> str:
    first, last = rule[0] + "0", f"{rule[0]}{count}"
    return f'start: {first}\n{last}: "x"\n' + "\n".join(rule.format(i, i + 1) for i in range(count))


def _nested_one_of(depth: int) -> dict[str, object]:
    inner: dict[str, object] = {"type": "null"}
    for level in range(depth):
        branches = [{"properties": {"k": {"const": sign * level}, "v": inner}} for sign in (1, -1)]
        inner = {"oneOf": [{"$ref": "#/$defs/x"}, *branches]}
    return {**inner, "$defs": {"x": True}}


# Texts that make a compiler slow, large or crash; most are within the limits of size.
HOSTILE: dict[str, Callable[[], Constraint]] = {
    "4,000 references in a row": lambda: schema(_chain(4000)),
    "9,000 rules in a row": lambda: lark(
        "start: r0\n" + "\n".join(f"r{i}: r{i + 1}" for i in range(9000)) + '\nr9000: "x"'
    ),
    "9,000 terminals in a row": lambda: lark(_rules(9000, "R{}: R{}")),
    "terminals that double": lambda: lark(_rules(40, "R{0}: R{1} R{1}")),
    "nested repeats": lambda: lark("start: /(((a{1,99}){1,99}){1,99}b?){1,99}/"),
    "9,000 objects in an enum": lambda: schema({"enum": [{"a": i, "b": [i]} for i in range(9000)]}),
    "9,000 properties": lambda: schema({"properties": {f"p{i}": {"type": "null"} for i in range(9000)}}),
    "a huge multiple": lambda: schema({"type": "integer", "multipleOf": 9999}),
    "nested oneOf": lambda: schema(_nested_one_of(9), is_strict=False),
    "many alternatives of many": lambda: schema(
        {"allOf": [{"anyOf": [{"required": [f"p{i}"]}, {"required": [f"q{i}"]}]} for i in range(14)]}
    ),
    "many patterns": lambda: schema({"patternProperties": {f"^x{i}.*y.*z{i}$": True for i in range(400)}}),
    "patterns that need a search": lambda: schema({"type": "string", "pattern": "(.*a.{20}){5}", "minLength": 100}),
    "many such patterns": lambda: schema(
        {"anyOf": [{"type": "string", "pattern": f"(.*{i}.{{20}}){{5}}", "minLength": 99} for i in range(200)]},
        is_strict=False,
    ),
    "an ambiguous pattern": lambda: schema({"type": "string", "pattern": "^(a|a)*$"}),
    "a billion items": lambda: schema({"type": "array", "maxItems": 10**9, "minItems": 10**8}),
    "a reference to itself": lambda: schema({"$ref": "#"}),
    "an ambiguous grammar": lambda: lark('start: a\na: a a | "x" |'),
    "10,000 words": lambda: lark("start: " + " | ".join(f'"w{i}"' for i in range(10_000))),
    "parentheses": lambda: lark("start: " + "(" * 60_000 + '"a"' + ")" * 60_000),
    "a million repeats": lambda: lark('start: ("a" | "b" "c"?){1,1000000}'),
    "10 MB of values": lambda: schema({"enum": [f"value {i}" for i in range(700_000)]}),
    "1.2 MB of grammar": lambda: lark("start: " + " | ".join(f'"w{i}"' for i in range(120_000))),
}
