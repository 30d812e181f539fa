"""Validation messages: pydantic's errors in OpenAI's wording."""

from collections.abc import Mapping
from typing import cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from storage.errors import InvalidRequest, UnsupportedParameter

UNSUPPORTED = "unsupported_parameter"
UNKNOWN = "unknown_parameter"
# Union tags begin with this mark. pydantic puts tags into an error's path, and no field name begins with it.
TAG = "~"
# The context key by which a check of a whole object names the wrong field.
FIELD = "field"
_MAX_PARAM = 200

_WANTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


def invalid_request_of(refusal: ValidationError) -> InvalidRequest:
    """The error to raise for the first of pydantic's errors."""
    found = refusal.errors(include_url=False)[0]
    param = _path_of(found) or None
    if found["type"] == UNSUPPORTED:
        return UnsupportedParameter(f"Unsupported parameter: '{param}' {found['msg']}.", param=param)
    if found["type"] in ("extra_forbidden", UNKNOWN):
        return UnsupportedParameter(f"Unknown parameter: '{param}'.", param=param)
    return InvalidRequest(_sentence_of(found, param), param=param)


def _path_of(found: ErrorDetails) -> str:
    """The path of the error, as OpenAI writes it: `messages[0].content`. Its length is limited."""
    steps = [*found["loc"], *(step for name, step in found.get("ctx", {}).items() if name == FIELD)]
    written = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps if not _is_hidden(step))
    path = "".join(written).removeprefix(".")
    return path if len(path) <= _MAX_PARAM else path[:_MAX_PARAM] + "..."


def _is_hidden(step: object) -> bool:
    """Whether a step is pydantic's own and no name or place in the request."""
    return isinstance(step, str) and (step.startswith(TAG) or step == "[key]")


def _sentence_of(found: ErrorDetails, param: str | None) -> str:
    """The message, in OpenAI's wording where one exists. It never repeats the value, which may be long or private."""
    kind = found["type"]
    limits = cast(Mapping[str, object], found.get("ctx", {}))
    if kind == "missing":
        return f"Missing required parameter: '{param}'."
    if kind in _WANTED:
        return f"Invalid type for '{param}': expected {_WANTED[kind]}."
    if kind == "greater_than_equal":
        return f"Invalid '{param}': below the minimum value. Expected a value >= {limits['ge']}."
    if kind == "less_than_equal":
        return f"Invalid '{param}': above the maximum value. Expected a value <= {limits['le']}."
    if kind in ("string_too_long", "too_long"):
        return f"Invalid '{param}': too long. Expected at most {limits['max_length']} {_things(kind)}."
    if kind in ("string_too_short", "too_short"):
        return f"Invalid '{param}': too short. Expected at least {limits['min_length']} {_things(kind)}."
    if kind == "string_pattern_mismatch":
        return f"Invalid '{param}': it must match {limits['pattern']}."
    if kind == "literal_error":
        return f"Invalid value for '{param}': expected {limits['expected']}."
    return f"Invalid '{param}': {found['msg']}."


def _things(kind: str) -> str:
    return "characters" if kind.startswith("string") else "elements"
