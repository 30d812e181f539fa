"""OpenAPI schema: completes what FastAPI generates with the table of operations, since the routes read requests
themselves.
"""

import re
from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from api.errors import answer_to
from api.http.api_versions import QUERY_NAME, VERSIONS
from api.interface.answer_models import Error
from api.interface.operation_table import OPERATIONS, Operation
from api.interface.schema_examples import ANSWERS, REQUESTS, STREAM
from api.protocol.shared.envelope import error_body
from api.protocol.structured.format_fields import StructuredRequest
from storage.batches.batch_states import LineStatus
from storage.contract import JobStatus
from storage.errors import IDEMPOTENCY_KEY, PlatformError

Schema = dict[str, Any]  # Any: a JSON object of the OpenAPI schema

_REF = "#/components/schemas/{model}"
_DESCRIPTION = (
    "Job-queue based asynchronous inference with the OpenAI API. Every call is a stored job with an id; its result can "
    "be awaited, streamed, polled, or sent to a webhook."
)
_VERSION_SCHEMA: Schema = {"type": "string", "enum": list(VERSIONS)}
_PARAMETERS: dict[str, Schema] = {
    "ApiVersion": {
        "name": "X-API-Version",
        "in": "header",
        "description": "The version of the API; another is refused.",
        "schema": _VERSION_SCHEMA,
    },
    "ApiVersionQuery": {
        "name": QUERY_NAME,
        "in": "query",
        "description": "The same as X-API-Version.",
        "schema": _VERSION_SCHEMA,
    },
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Comes back in the answer and stands in the logs; another is made where it does not match.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    },
    "IdempotencyKey": {
        "name": IDEMPOTENCY_KEY,
        "in": "header",
        "description": "A repeated call with the same key creates nothing and gets the first call's answer.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    },
    "Prefer": {
        "name": "Prefer",
        "in": "header",
        "description": "`respond-async` answers at once with 202; `wait=N` does so after N seconds.",
        "schema": {"type": "string"},
        "example": "respond-async",
    },
}
_COMMON_PARAMETERS = ("ApiVersion", "ApiVersionQuery", "RequestId")
_QUERY: dict[str, tuple[Schema, str]] = {
    "limit": ({"type": "integer", "minimum": 1}, "Length of the page."),
    "order": ({"type": "string", "enum": ["asc", "desc"]}, "Oldest or newest first."),
    "after": ({"type": "string"}, "The id behind which the page begins."),
    "stream": ({"type": "boolean", "default": False}, "Replay the job as a stream of server-sent events."),
    "starting_after": ({"type": "integer", "minimum": -1}, "Sequence number behind which a stream begins."),
    "include": ({"type": "array", "items": {"type": "string"}}, "More fields to include."),
    "include_obfuscation": ({"type": "boolean", "enum": [False]}, "Padding of streams; not supported."),
    "model": ({"type": "string"}, "Only those of this model."),
    "metadata": (
        {"type": "object", "additionalProperties": {"type": "string"}},
        "Only those with these pairs, as `metadata[key]=value`.",
    ),
    "purpose": (
        {"type": "string", "enum": ["batch", "batch_output", "user_data", "vision"]},
        "Only files of this purpose.",
    ),
    "status": ({"type": "string", "enum": ["pending", "delivered", "dead"]}, "Only deliveries of this status."),
    "job_status": (
        {"type": "string", "enum": [status.value for status in JobStatus]},
        "Only responses of this status.",
    ),
    "line_status": ({"type": "string", "enum": [*LineStatus]}, "Only requests of this status."),
}
# Parameters of one name that mean different things.
_WIRE_NAMES = {"job_status": "status", "line_status": "status"}

_JSON = "application/json"
_FORM = "multipart/form-data"
_DOWNLOAD: Schema = {
    "description": "The bytes of the file",
    "headers": {"content-disposition": {"description": "The file's name.", "schema": {"type": "string"}}},
    "content": {
        "application/octet-stream": {
            "schema": {"type": "string", "format": "binary"},
            "example": '{"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": {"model": "smollm2"}}',
        }
    },
}
_UNENFORCED: Schema = {
    "tokenpost-unenforced": {
        "description": "Keywords of the request's schemas that are not enforced.",
        "schema": {"type": "string", "example": "uniqueItems, not"},
    }
}
_FIRST_CLAUSE = re.compile(r"[.,:;](?:\s|$)")


def describe(app: FastAPI) -> None:
    """Extend the schema that `app.openapi()` returns."""
    plain = app.openapi

    def openapi() -> Schema:
        schema = plain()
        if "Error" not in schema.setdefault("components", {}).setdefault("schemas", {}):
            _complete(schema)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _complete(schema: Schema) -> None:
    schema["info"]["description"] = _DESCRIPTION
    schema["components"] = {
        "schemas": _models(),
        "parameters": _PARAMETERS,
        "securitySchemes": {
            "key": {"type": "http", "scheme": "bearer", "description": "Not needed on a keyless start."}
        },
    }
    schema["security"] = [{"key": []}, {}]
    for path, operations in schema["paths"].items():
        for method, described in operations.items():
            _describe(described, OPERATIONS[method, path])


def _models() -> Schema:
    bodies = {one.body for one in OPERATIONS.values() if one.body is not None}
    answers: set[type[BaseModel]] = {Error}
    for one in OPERATIONS.values():
        answers.update(one.answers.values())
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(body, "validation") for body in bodies]
    wanted += [(answer, "validation") for answer in answers]
    _, found = models_json_schema(sorted(wanted, key=lambda one: one[0].__name__), ref_template=_REF)
    return dict(found["$defs"])


def _describe(described: Schema, operation: Operation) -> None:
    described["summary"] = _FIRST_CLAUSE.split(described["description"])[0]
    if operation.is_open:
        described["security"] = []
    described["parameters"] = [
        *described.get("parameters", ()),
        *(_query_parameter(name, operation) for name in operation.query),
        *({"$ref": f"#/components/parameters/{name}"} for name in _parameters_of(operation)),
    ]
    if operation.body is not None:
        name = operation.body.__name__
        content = _content(name, REQUESTS[name], media_type=_FORM if operation.is_form else _JSON)
        described["requestBody"] = {"required": True, "content": content}
    answers = {
        str(status): _answer(model.__name__, operation.streams and status == 200)
        for status, model in _sorted(operation)
    }
    if operation.is_download:
        answers["200"] = _DOWNLOAD
    if operation.is_keyed and operation.body is not None and issubclass(operation.body, StructuredRequest):
        for answer in answers.values():
            answer["headers"] = _UNENFORCED
    described["responses"] = {**answers, **_error_answers(operation.all_errors)}


def _sorted(operation: Operation) -> list[tuple[int, type[BaseModel]]]:
    return sorted(operation.answers.items())


def _parameters_of(operation: Operation) -> list[str]:
    names = list(_COMMON_PARAMETERS)
    if operation.is_keyed:
        names.append("IdempotencyKey")
    if operation.prefers:
        names.append("Prefer")
    return names


def _query_parameter(name: str, operation: Operation) -> Schema:
    schema, description = _QUERY[name]
    if name == "limit":
        schema = {**schema, "maximum": operation.max_page, "default": operation.page}
    parameter: Schema = {
        "name": _WIRE_NAMES.get(name, name),
        "in": "query",
        "description": description,
        "schema": schema,
    }
    return {**parameter, "style": "deepObject", "explode": True} if schema["type"] == "object" else parameter


def _content(model: str, example: object, *, media_type: str = _JSON) -> Schema:
    return {media_type: {"schema": {"$ref": _REF.format(model=model)}, "example": example}}


def _answer(model: str, is_stream: bool) -> Schema:
    content = _content(model, ANSWERS[model])
    if is_stream:
        content["text/event-stream"] = {"schema": {"type": "string"}, "example": STREAM}
    return {"description": f"{model.removesuffix('Object')}", "content": content}


def _error_answers(kinds: Iterable[type[PlatformError]]) -> Schema:
    by_status: dict[int, dict[str, type[PlatformError]]] = {}
    for kind in kinds:
        by_status.setdefault(answer_to(kind).status, {}).setdefault(kind.code, kind)
    return {str(status): _error_answer(by_code) for status, by_code in sorted(by_status.items())}


def _error_answer(by_code: dict[str, type[PlatformError]]) -> Schema:
    examples = {
        code: {"value": error_body(_first_line(kind), answer_to(kind).type, None, code)}
        for code, kind in by_code.items()
    }
    content = {"application/json": {"schema": {"$ref": _REF.format(model="Error")}, "examples": examples}}
    return {"description": "Error codes: " + ", ".join(f"`{code}`" for code in by_code), "content": content}


def _first_line(kind: type[PlatformError]) -> str:
    return (kind.__doc__ or kind.code).partition("\n")[0]
