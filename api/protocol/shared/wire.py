"""Strict parsing of request bodies: the base classes and field types of all wire types.

A body is parsed as JSON (no NaN, no lone surrogate, limited nesting) and then validated by a pydantic model that
refuses undeclared fields. Every error is an `InvalidRequest` that names the field.
"""

from typing import TYPE_CHECKING, Annotated, LiteralString, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic import ValidationError as _Refusal
from pydantic_core import PydanticCustomError, from_json

from api.protocol.shared.validation_messages import FIELD, UNKNOWN, UNSUPPORTED, invalid_request_of
from storage.errors import InvalidRequest

INT64_MAX = 2**63 - 1
MAX_CHOICES = 128
_MAX_PAIRS = 16


class Wire(BaseModel):
    """A JSON object in a request: no undeclared fields, no coercion, no infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_few_names(cls, value: object) -> object:
        # pydantic records an error for each unknown name, and a hostile body can have a million of them.
        if isinstance(value, dict) and len(value) > len(cls.__pydantic_fields__):
            unknown = next(name for name in value if name not in cls.__pydantic_fields__)
            raise PydanticCustomError(UNKNOWN, "is unknown", {FIELD: unknown})
        return value


class WireRequest(Wire):
    """A whole request body."""

    # A private attribute of pydantic would cost several function calls for each request.
    __slots__ = ("_sent",)
    if TYPE_CHECKING:
        _sent: dict[str, object]

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """The request in `body`. Raises only InvalidRequest and UnsupportedParameter, for any bytes."""
        return cls.parse_value(_value_of(body))

    @classmethod
    def parse_value(cls, value: object) -> Self:
        """The request in a decoded body. Raises as `parse`."""
        if not isinstance(value, dict):
            raise InvalidRequest("The request body must be a JSON object.")
        sent = cast(dict[str, object], value)
        try:
            request = cls.model_validate(sent)
        except _Refusal as error:
            raise invalid_request_of(error) from None
        object.__setattr__(request, "_sent", {name: value for name, value in sent.items() if value is not None})
        return request

    @property
    def sent(self) -> dict[str, object]:
        """The body as it was sent, as JSON values, without its top-level nulls."""
        return self._sent


def _value_of(body: bytes) -> object:
    """The JSON value in `body`; of a repeated name the last value counts."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"We could not parse the JSON body of your request: {error}.") from None


def fault(field: str, sentence: LiteralString) -> PydanticCustomError:
    """The validation error of a check of a whole object whose `field` is wrong."""
    return PydanticCustomError("fault", sentence, {FIELD: field})


def only(*allowed: object) -> AfterValidator:
    """A validator of a known field that is not supported: absent, null and the `allowed` values pass."""

    def check(value: object) -> object:
        if value is None or any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
            return value
        raise PydanticCustomError(UNSUPPORTED, "is not supported here yet")

    return AfterValidator(check)


def _without_nul(text: str) -> str:
    # PostgreSQL refuses U+0000 in text, so values that become part of a query must not contain it.
    if "\x00" in text:
        raise PydanticCustomError("nul", "must not contain the character U+0000")
    return text


def _list_of_one(value: object) -> object:
    return [value] if isinstance(value, str) else value


def few_pairs(limit: int) -> BeforeValidator:
    """A validator of an object of at most `limit` pairs. It runs before the pairs are validated."""

    def check(value: object) -> object:
        if isinstance(value, dict) and len(value) > limit:
            raise PydanticCustomError("pairs", "expected at most {limit} pairs", {"limit": limit})
        return value

    return BeforeValidator(check)


Refused = Annotated[object, only()]
Name = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_without_nul)]
Label = Annotated[str, StringConstraints(max_length=1024)]
SafetyIdentifier = Annotated[str, StringConstraints(max_length=128)]
Seed = Annotated[int, Field(ge=-INT64_MAX - 1, le=INT64_MAX)]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(ge=0, le=1)]
TopK = Annotated[int, Field(ge=-1, le=2**31 - 1)]
MaxTokens = Annotated[int, Field(ge=1, le=INT64_MAX)]
NumChoices = Annotated[int, Field(ge=1, le=8)]
_StopString = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Stop = Annotated[list[_StopString], Field(max_length=4), BeforeValidator(_list_of_one)]
_MetadataKey = Annotated[str, StringConstraints(max_length=64), AfterValidator(_without_nul)]
_MetadataValue = Annotated[str, StringConstraints(max_length=512), AfterValidator(_without_nul)]
Metadata = Annotated[dict[_MetadataKey, _MetadataValue], few_pairs(_MAX_PAIRS)]


class StreamOptions(Wire):
    """Stream options of Chat and Completions. We send no obfuscation padding."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[object, only(False)] = None
