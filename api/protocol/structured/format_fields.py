"""The fields that ask for a format of the answer: `response_format`, `text.format`, and the names of open servers.

Source: OpenAI specification of 2026-08-21; vLLM 0.33 for `structured_outputs`, its older releases for `guided_...`.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

import msgspec
from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, StringConstraints, Tag, model_validator
from pydantic_core import PydanticCustomError

from api.protocol.shared.validation_messages import TAG, UNSUPPORTED
from api.protocol.shared.wire import Refused, Wire, WireRequest, fault, only
from api.protocol.structured.constraints import Constraint, ConstraintKind, Judged

_ANY_OBJECT = '{"type":"object"}'
_TYPES = ("text", "json_object", "json_schema")
# The kinds by the names that open servers give their fields.
_KIND_BY_NAME = {
    "json": ConstraintKind.SCHEMA,
    "regex": ConstraintKind.REGEX,
    "choice": ConstraintKind.CHOICE,
    "grammar": ConstraintKind.GRAMMAR,
}
# The fields besides `response_format` that ask for a format.
_OTHER_FORMATS = ("structured_outputs", *(f"guided_{name}" for name in _KIND_BY_NAME))
# All of them, in any wire.
_FORMAT_FIELDS = frozenset({"response_format", "text", *_OTHER_FORMATS})
_NOT_A_FORMAT = "expected an object with the 'type' text, json_object or json_schema"

FormatName = Annotated[str, StringConstraints(pattern="^[a-zA-Z0-9_-]{1,64}$")]
_Schema = dict[str, object]


def _document_tag(value: object) -> str | None:
    if isinstance(value, str):
        return f"{TAG}text"
    return f"{TAG}schema" if isinstance(value, dict) else None


_SchemaOrText = Annotated[
    Annotated[_Schema, Tag(f"{TAG}schema")] | Annotated[str, Tag(f"{TAG}text")],
    Discriminator(_document_tag, custom_error_type="shape", custom_error_message="expected a schema, or its JSON text"),
]


class TextFormat(Wire):
    """Plain text, which is no format."""

    type: Literal["text"]


class ObjectFormat(Wire):
    """Any JSON object."""

    type: Literal["json_object"]


class _Named(Wire):
    """A schema and its name. Without a schema it is any JSON object."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: FormatName
    # The name `schema` belongs to pydantic's own class.
    document: _Schema | None = Field(None, alias="schema")
    strict: bool | None = None
    description: str | None = None

    def constraint(self, param: str) -> Constraint:
        """The schema as a constraint that errors call `param`."""
        return Constraint(
            param=param,
            title=f"response_format '{self.name}'",
            kind=ConstraintKind.SCHEMA,
            text=_ANY_OBJECT if self.document is None else _encoded(self.document),
            is_strict=self.strict or False,
        )


class SchemaFormat(Wire):
    """A JSON schema, in the form of Chat Completions."""

    type: Literal["json_schema"]
    json_schema: _Named


class FlatSchemaFormat(_Named):
    """A JSON schema, in the form of Responses."""

    type: Literal["json_schema"]


def _of_known_type(value: object) -> object:
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind not in _TYPES:
        raise PydanticCustomError(UNSUPPORTED, "names a format that is not supported here")
    return value


def _tag_of(value: object) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    return f"{TAG}{kind}" if kind in _TYPES else None


_TextOrObject = Annotated[TextFormat, Tag(f"{TAG}text")] | Annotated[ObjectFormat, Tag(f"{TAG}json_object")]
_shape = Discriminator(_tag_of, custom_error_type="shape", custom_error_message=_NOT_A_FORMAT)
_known = BeforeValidator(_of_known_type)
ResponseFormat = Annotated[_TextOrObject | Annotated[SchemaFormat, Tag(f"{TAG}json_schema")], _shape, _known]
ResponseTextFormat = Annotated[_TextOrObject | Annotated[FlatSchemaFormat, Tag(f"{TAG}json_schema")], _shape, _known]

_Choices = Annotated[list[str], Field(min_length=1, max_length=10_000, fail_fast=True)]
_Regex = Annotated[str, StringConstraints(min_length=1)]


class StructuredOutputs(Wire):
    """`structured_outputs`: exactly one kind of format."""

    # The name `json` belongs to pydantic's own class.
    document: _SchemaOrText | None = Field(None, alias="json")
    regex: _Regex | None = None
    choice: _Choices | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: Refused = None
    whitespace_pattern: Refused = None
    disable_any_whitespace: Annotated[object, only(False)] = None
    disable_additional_properties: Annotated[object, only(False)] = None
    disable_fallback: Annotated[object, only(False)] = None

    @model_validator(mode="after")
    def _has_one_kind(self) -> Self:
        kinds = [self.document, self.regex, self.choice, self.grammar, self.json_object or None]
        if sum(kind is not None for kind in kinds) != 1:
            raise PydanticCustomError("kinds", "expected exactly one of json, regex, choice, grammar and json_object")
        return self

    @property
    def constraint(self) -> Constraint:
        """The format as a constraint."""
        given = _given(
            "structured_outputs.", json=self.document, regex=self.regex, choice=self.choice, grammar=self.grammar
        )
        return given or any_object("structured_outputs.json_object")


class StructuredRequest(WireRequest):
    """The fields of a create request for the format of its answer."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: _SchemaOrText | None = None
    guided_regex: _Regex | None = None
    guided_choice: _Choices | None = None
    guided_grammar: str | None = None

    @model_validator(mode="after")
    def _has_one_format(self) -> Self:
        given = self._formats()
        if len(given) > 1:
            raise fault(given[1], "another field of the request asks for a format already")
        return self

    @property
    def names_format(self) -> bool:
        """Whether the request has a field for the format, be it null; most have none and nothing is looked up."""
        return not self.model_fields_set.isdisjoint(_FORMAT_FIELDS)

    def _formats(self) -> list[str]:
        """The fields that ask for a format."""
        if not self.names_format:
            return []
        is_asked = not isinstance(self.response_format, TextFormat | None)
        return ["response_format"] * is_asked + [name for name in _OTHER_FORMATS if getattr(self, name) is not None]

    @property
    def answer_constraint(self) -> Constraint | None:
        """The format of the answer as a constraint."""
        if not self.names_format:
            return None
        if isinstance(self.response_format, SchemaFormat):
            return self.response_format.json_schema.constraint("response_format")
        if isinstance(self.response_format, ObjectFormat):
            return any_object("response_format")
        if self.structured_outputs is not None:
            return self.structured_outputs.constraint
        return _given(
            "guided_",
            json=self.guided_json,
            regex=self.guided_regex,
            choice=self.guided_choice,
            grammar=self.guided_grammar,
        )

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """All schemas and grammars of the request that are judged before it becomes a job."""
        answer = self.answer_constraint
        return () if answer is None else (answer,)


def _given(prefix: str, **definitions: object) -> Constraint | None:
    """The constraint of the one definition that is given; None where none is.

    prefix: of the definitions' names in the request
    """
    for name, definition in definitions.items():
        if definition is not None:
            return _constraint(f"{prefix}{name}", _KIND_BY_NAME[name], definition)
    return None


def any_object(param: str) -> Constraint:
    """The constraint that the answer is some JSON object."""
    return _constraint(param, ConstraintKind.SCHEMA, _ANY_OBJECT)


def _constraint(param: str, kind: ConstraintKind, definition: object) -> Constraint:
    text = definition if isinstance(definition, str) else _encoded(definition)
    return Constraint(param=param, title=param, kind=kind, text=text)


def _encoded(value: object) -> str:
    return msgspec.json.encode(value).decode()


def constraints_of(request: WireRequest) -> tuple[Constraint, ...]:
    """The schemas and grammars of any create request."""
    return request.constraints if isinstance(request, StructuredRequest) else ()


def answer_part(request: WireRequest, judged: Mapping[str, Judged]) -> Mapping[str, object] | None:
    """The grammar part of the answer's format, without a name; None where the request asks for no format.

    judged: the judgments of the request's constraints by `param`
    """
    answer = request.answer_constraint if isinstance(request, StructuredRequest) else None
    return None if answer is None else judged[answer.param].grammar_part
