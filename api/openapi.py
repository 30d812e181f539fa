"""OpenAPI schema: adds request bodies, headers and the error schema to what FastAPI generates, since the routes read
requests themselves."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.protocol.chat.request import ChatRequest, MetadataUpdate
from api.protocol.completions.request import CompletionRequest
from api.protocol.responses.request import InputTokensRequest, ResponseRequest
from api.protocol.shared.webhook_fields import EndpointTest, EndpointUpdate, NewEndpoint, Redelivery, SecretRotation
from storage.errors import IDEMPOTENCY_KEY

# Bodies of POST by path.
_BODIES: Mapping[str, type[BaseModel]] = {
    "/v1/responses": ResponseRequest,
    "/v1/responses/input_tokens": InputTokensRequest,
    "/v1/chat/completions": ChatRequest,
    "/v1/chat/completions/{completion_id}": MetadataUpdate,
    "/v1/streaming/chat": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/streaming/completions": CompletionRequest,
    "/v1/async/completions": CompletionRequest,
    "/v1/webhook_endpoints": NewEndpoint,
    "/v1/webhook_endpoints/{endpoint_id}": EndpointUpdate,
    "/v1/webhook_endpoints/{endpoint_id}/rotate_secret": SecretRotation,
    "/v1/webhook_endpoints/{endpoint_id}/test": EndpointTest,
    "/v1/webhook_endpoints/{endpoint_id}/redeliver": Redelivery,
}
# Bodies of the calls that create something.
_CREATES = frozenset({ResponseRequest, ChatRequest, CompletionRequest, NewEndpoint})
_KEY_HEADER = {
    "name": IDEMPOTENCY_KEY,
    "in": "header",
    "required": False,
    "description": "A repeated call with the same key creates nothing and gets the first call's answer.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
_NULLABLE_TEXT = {"type": ["string", "null"]}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": _NULLABLE_TEXT,
                "code": _NULLABLE_TEXT,
            },
        }
    },
}
_REF = "#/components/schemas/{model}"
_ANY_ERROR = {
    "description": "Any error",
    "content": {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}},
}

Schema = dict[str, Any]  # Any: a JSON object of the OpenAPI schema


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
    _, shapes = models_json_schema([(body, "validation") for body in {*_BODIES.values()}], ref_template=_REF)
    # FastAPI's own error shapes are never sent.
    schema["components"]["schemas"] = {**shapes["$defs"], "Error": _ERROR}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = _ANY_ERROR
            body = _BODIES.get(path)
            if method == "post" and body is not None:
                reference = {"$ref": _REF.format(model=body.__name__)}
                operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": reference}}}
                if body in _CREATES:
                    operation.setdefault("parameters", []).append(_KEY_HEADER)
