"""Keywords of strings and numbers, in the form that is compiled."""

import math
from collections.abc import Mapping
from typing import cast

from api.protocol.structured.schemas.keywords import MAX_COUNT, MAX_WHOLE
from api.protocol.structured.schemas.malformed import is_number
from api.protocol.structured.schemas.patterns import is_read_alike
from api.protocol.structured.schemas.reading import Findings, SchemaPath
from api.protocol.structured.schemas.text_formats import EXACT_PATTERNS, FORMATS

# Bounds and multiples nearer to zero are too long as decimal numbers.
_MIN_MAGNITUDE = 1e-15
_MAX_MULTIPLE = 10_000
_MAX_DECIMALS = 15
_TOO_LARGE = "cannot be enforced beyond 2^53, nor nearer to zero than 1e-15"


def strings(schema: Mapping[str, object], path: SchemaPath, findings: Findings) -> dict[str, object]:
    """The keywords of strings."""
    kept: dict[str, object] = {}
    for keyword in ("minLength", "maxLength"):
        if keyword in schema:
            count = count_of(schema[keyword])
            if count > MAX_COUNT:
                findings.leave_out(keyword, path, f"cannot be enforced beyond {MAX_COUNT}")
            elif count or keyword == "maxLength":
                kept[keyword] = count
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        if is_read_alike(pattern):
            kept["pattern"] = pattern
        else:
            findings.leave_out("pattern", path, "cannot be enforced: it is not read as it is meant")
    name = schema.get("format")
    if isinstance(name, str):
        if name not in FORMATS:
            findings.leave_out("format", path, f"must be one of {', '.join(FORMATS)} to be enforced")
        elif name in EXACT_PATTERNS and "pattern" not in kept:
            kept["pattern"] = EXACT_PATTERNS[name]
        else:
            kept["format"] = name
    return kept


def count_of(value: object) -> int:
    """A count, also where it is written as 2.0."""
    return int(cast(float, value))


def numbers(schema: Mapping[str, object], path: SchemaPath, findings: Findings) -> dict[str, object]:
    """The keywords of numbers; the boolean `exclusive...` of draft 4 become numbers."""
    kept: dict[str, object] = {}
    for keyword, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        bound, other = schema.get(keyword), schema.get(exclusive)
        if other is True and bound is not None:
            limits = {exclusive: bound}
        else:
            limits = {keyword: bound, exclusive: None if isinstance(other, bool) else other}
        for name, value in limits.items():
            if value is None:
                continue
            if is_exact(value):
                kept[name] = value
            else:
                findings.leave_out(name, path, _TOO_LARGE)
    multiple = schema.get("multipleOf")
    if is_number(multiple):
        units = _decimal_units(cast(float, multiple))
        if units is None or not findings.takes_multiple(*units):
            findings.leave_out("multipleOf", path, f"cannot be enforced beyond {_MAX_MULTIPLE} decimal units")
        else:
            kept["multipleOf"] = multiple
    return kept


def is_exact(value: object) -> bool:
    """Whether a number is compiled as it is: neither too large for a double nor too long as a decimal number."""
    magnitude = abs(cast(float, value))
    return magnitude == 0 or _MIN_MAGNITUDE <= magnitude <= MAX_WHOLE


def _decimal_units(value: float) -> tuple[int, int] | None:
    """A number as whole units of its last decimal, and its number of decimals; None for one that is not compiled.

    The compiler finds them in this way.
    """
    if not is_exact(value):
        return None
    decimals, scaled = 0, float(value)
    while scaled != math.floor(scaled) and decimals < _MAX_DECIMALS and scaled <= MAX_WHOLE:
        scaled *= 10.0
        decimals += 1
    return (int(scaled), decimals) if scaled <= _MAX_MULTIPLE and scaled == math.floor(scaled) else None
