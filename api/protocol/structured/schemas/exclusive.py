"""Branches of `oneOf` that exclude each other provably, so that `anyOf` says the same of them.

Two schemas are read as conjunctions: themselves, their `allOf` branches, and what their references name. They exclude
each other if for every type of value that both allow, one of their keywords rules the values of the other out.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import cast

from api.protocol.structured.schemas.keywords import TYPES
from api.protocol.structured.schemas.malformed import is_number
from api.protocol.structured.schemas.reading import SchemaRefused
from api.protocol.structured.schemas.references import Resource, is_local, resource_of, target_of
from api.protocol.structured.schemas.values import are_equal, literals_of, type_of

# Comparisons of one document; a schema that needs more is not proved.
_MAX_STEPS = 20_000
_MAX_DEPTH = 8
_ALL_TYPES = frozenset(TYPES)
_LENGTHS = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems")}

# A schema of a conjunction, and the resource of its references.
_Part = tuple[dict[str, object], Resource]


class Branches:
    """Proves exclusion within one document, with a limit of steps."""

    def __init__(self) -> None:
        self._steps = 0

    def exclude_each_other(self, branches: Sequence[object], resource: Resource) -> bool:
        """Whether no value fits two of the branches, as far as that is provable."""
        return all(self._exclude(a, b, resource, resource, 0) for a, b in combinations(branches, 2))

    def _exclude(self, a: object, b: object, around_a: Resource, around_b: Resource, depth: int) -> bool:
        self._steps += 1
        if a is False or b is False:
            return True
        if depth > _MAX_DEPTH or self._steps > _MAX_STEPS:
            return False
        parts_a, parts_b = list(_parts(a, around_a, 0)), list(_parts(b, around_b, 0))
        if self._is_excluded_by_branches(parts_a, b, around_b, depth):
            return True
        if self._is_excluded_by_branches(parts_b, a, around_a, depth):
            return True
        common = _types(parts_a) & _types(parts_b)
        return all(self._exclude_on(kind, parts_a, parts_b, depth) for kind in common)

    def _is_excluded_by_branches(self, parts: Sequence[_Part], other: object, around: Resource, depth: int) -> bool:
        """Whether each branch of an `anyOf` or `oneOf` excludes the other schema."""
        return any(
            all(self._exclude(branch, other, within, around, depth + 1) for branch in _list_of(part, keyword))
            for part, within in parts
            for keyword in ("anyOf", "oneOf")
            if keyword in part
        )

    def _exclude_on(self, kind: str, parts_a: Sequence[_Part], parts_b: Sequence[_Part], depth: int) -> bool:
        """Whether no value of one type fits both conjunctions."""
        values_a, values_b = _literals(kind, parts_a), _literals(kind, parts_b)
        if values_a is not None and values_b is not None:
            self._steps += len(values_a) * len(values_b)
            if self._steps <= _MAX_STEPS and not any(are_equal(a, b) for a in values_a for b in values_b):
                return True
        if kind in ("integer", "number"):
            return _are_apart(parts_a, parts_b, ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"))
        if kind in _LENGTHS:
            low, high = _LENGTHS[kind]
            return _are_apart(parts_a, parts_b, (low,), (high,))
        return kind == "object" and self._exclude_as_objects(parts_a, parts_b, depth)

    def _exclude_as_objects(self, parts_a: Sequence[_Part], parts_b: Sequence[_Part], depth: int) -> bool:
        """Whether a property that one of them requires cannot be the same in both."""
        return any(
            self._exclude(a, b, around_a, around_b, depth + 1)
            for name in dict.fromkeys((*_required(parts_a), *_required(parts_b)))
            for a, around_a in _property(name, parts_a)
            for b, around_b in _property(name, parts_b)
        )


def _parts(schema: object, around: Resource, depth: int) -> Iterator[_Part]:
    """The schemas that a value must fit all of; malformed ones and those too deep are passed over."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return
    within = resource_of(schema, ("",), around)
    yield schema, within
    for branch in _list_of(schema, "allOf"):
        yield from _parts(branch, within, depth + 1)
    reference = schema.get("$ref")
    if isinstance(reference, str) and is_local(reference):
        try:
            target = target_of(reference, within, ())
        except SchemaRefused:
            return  # reported where the schema itself is read
        yield from _parts(target.schema, target.resource, depth + 1)


def _list_of(schema: Mapping[str, object], keyword: str) -> list[object]:
    branches = schema.get(keyword)
    return branches if isinstance(branches, list) else []


def _types(parts: Sequence[_Part]) -> frozenset[str]:
    """The types that a conjunction allows; `number` stands for numbers that are no integers."""
    allowed = _ALL_TYPES
    for part, _ in parts:
        types = part.get("type")
        names = {types} if isinstance(types, str) else set(types) if isinstance(types, list) else set(TYPES)
        if "number" in names:
            names.add("integer")
        values = literals_of(part)
        if isinstance(values, list):
            names &= set(map(type_of, values))
        allowed &= names
    return allowed


def _literals(kind: str, parts: Sequence[_Part]) -> list[object] | None:
    """The only values of a type that a conjunction allows; None where it names none."""
    for part, _ in parts:
        values = literals_of(part)
        if isinstance(values, list):
            return [value for value in values if type_of(value) == kind]
    return None


def _are_apart(
    parts_a: Sequence[_Part], parts_b: Sequence[_Part], lows: tuple[str, ...], highs: tuple[str, ...]
) -> bool:
    """Whether one range ends before the other begins."""
    return _ends_before(parts_a, parts_b, lows, highs) or _ends_before(parts_b, parts_a, lows, highs)


def _ends_before(below: Sequence[_Part], above: Sequence[_Part], lows: tuple[str, ...], highs: tuple[str, ...]) -> bool:
    return any(
        high < low or (high == low and (high_name.startswith("exclusive") or low_name.startswith("exclusive")))
        for high, high_name in _limits(below, highs)
        for low, low_name in _limits(above, lows)
    )


def _limits(parts: Sequence[_Part], names: tuple[str, ...]) -> Iterator[tuple[float, str]]:
    for part, _ in parts:
        for name in names:
            if is_number(part.get(name)):
                yield cast(float, part[name]), name


def _required(parts: Sequence[_Part]) -> Iterator[str]:
    for part, _ in parts:
        yield from (name for name in _list_of(part, "required") if isinstance(name, str))


def _property(name: str, parts: Sequence[_Part]) -> Iterator[tuple[object, Resource]]:
    """The schemas that a property must fit; False where it may not be there."""
    for part, around in parts:
        properties = part.get("properties")
        if isinstance(properties, dict) and name in properties:
            yield properties[name], around
        elif part.get("additionalProperties") is False and not part.get("patternProperties"):
            yield False, around
