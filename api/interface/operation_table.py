"""Operations of the API for the OpenAPI schema: bodies, answers, parameters and errors by method and path."""

from collections.abc import Mapping

import msgspec
from pydantic import BaseModel

from api import errors as api_errors
from api.interface import answer_models as answers
from api.interface import batch_models as batches
from api.interface import conversation_models as conversations
from api.interface import encoder_models as encoders
from api.interface import file_models as files
from api.interface import webhook_models as webhooks
from api.protocol.batches.request import BatchRetry, NewBatch
from api.protocol.chat.request import ChatRequest, MetadataUpdate
from api.protocol.completions.request import CompletionRequest
from api.protocol.conversations.request import ConversationUpdate, NewConversation, NewItems
from api.protocol.embeddings.request import EmbeddingRequest
from api.protocol.rerank.request import RerankRequest, ScoreRequest
from api.protocol.responses.request import InputTokensRequest, ResponseMove, ResponseRequest
from api.protocol.shared.webhook_fields import EndpointTest, EndpointUpdate, NewEndpoint, Redelivery, SecretRotation
from storage import errors
from storage.errors import PlatformError
from storage.files.stored_files import MAX_PAGE
from storage.network.errors import WebhookUrlRefused
from storage.webhooks.errors import (
    WebhookDeliveryNotFound,
    WebhookEndpointDisabled,
    WebhookEndpointNotFound,
    WebhookUnanswered,
)

Errors = tuple[type[PlatformError], ...]

# Every request can meet these, those without a key included.
_HTTP: Errors = (
    errors.InvalidRequest,
    api_errors.MalformedRequest,
    errors.HostNotAllowed,
    api_errors.RequestTimeout,
    api_errors.HeadTooLarge,
    api_errors.TooManyConnectionsOfAddress,
    api_errors.TooManyConnections,
    api_errors.Unexpected,
)
_COMMON: Errors = (
    *_HTTP,
    errors.InvalidApiKey,
    errors.UnsupportedParameter,
    errors.StorageUnavailable,
    errors.ShuttingDown,
)
_WITH_BODY: Errors = (errors.BodyTooLarge, errors.UnsupportedMediaType)
_KEYED: Errors = (errors.IdempotencyKeyInUse, errors.IdempotencyKeyReused)
_CREATE: Errors = (
    *_WITH_BODY,
    *_KEYED,
    errors.ContextLengthExceeded,
    errors.ModelCapabilityMissing,
    errors.InvalidJsonSchema,
    errors.InvalidGrammar,
    WebhookUrlRefused,
    errors.ModelNotFound,
    errors.ModelUnavailable,
    errors.TooManyWaiting,
    errors.Overloaded,
    errors.GenerationFailed,
    api_errors.JobExpired,
    api_errors.JobCancelled,
)

_PAGE = ("limit", "order", "after")


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What the schema says of an operation besides its path parameters and its summary.

    answers:    models by status; the example of each is that of its name
    is_form:    whether the body is multipart/form-data and not JSON
    is_download: whether the answer is the bytes of a file
    streams:    whether a stream of server-sent events can be the answer
    is_keyed:   whether it takes an `Idempotency-Key`
    prefers:    whether it takes `Prefer`
    is_open:    whether no key is needed
    errors:     besides the common ones
    query:      names of query parameters
    max_page:   the largest `limit` of a list
    page:       its `limit` where a request names none
    """

    answers: Mapping[int, type[BaseModel]]
    body: type[BaseModel] | None = None
    errors: Errors = ()
    query: tuple[str, ...] = ()
    max_page: int = 100
    page: int = 20
    streams: bool = False
    is_form: bool = False
    is_download: bool = False
    is_keyed: bool = False
    prefers: bool = False
    is_open: bool = False

    @property
    def all_errors(self) -> Errors:
        """Every error class that a client can meet."""
        return (*(_HTTP if self.is_open else _COMMON), *self.errors)


def _create(
    body: type[BaseModel],
    answer: type[BaseModel],
    receipt: type[BaseModel],
    *more: type[PlatformError],
    prefers: bool = True,
    streams: bool = True,
) -> Operation:
    return Operation(
        body=body,
        answers={200: answer, 202: receipt},
        errors=(*_CREATE, *more),
        streams=streams,
        is_keyed=True,
        prefers=prefers,
    )


def _read(answer: type[BaseModel], *query: str, missing: type[PlatformError] = errors.JobNotFound) -> Operation:
    return Operation(answers={200: answer}, errors=(missing,), query=query, streams="stream" in query)


def _list(answer: type[BaseModel], *query: str, missing: type[PlatformError] | None = None) -> Operation:
    return Operation(answers={200: answer}, errors=() if missing is None else (missing,), query=(*_PAGE, *query))


def _conversation_call(
    answer: type[BaseModel],
    body: type[BaseModel] | None = None,
    *more: type[PlatformError],
    query: tuple[str, ...] = (),
) -> Operation:
    with_body = () if body is None else _WITH_BODY
    return Operation(
        body=body, answers={200: answer}, errors=(errors.ConversationNotFound, *with_body, *more), query=query
    )


def _endpoint_call(body: type[BaseModel] | None, answer: type[BaseModel], *more: type[PlatformError]) -> Operation:
    with_body = () if body is None else _WITH_BODY
    return Operation(body=body, answers={200: answer}, errors=(WebhookEndpointNotFound, *with_body, *more))


_RESPONSE = answers.ResponseObject
_CHAT = answers.ChatCompletionObject
_COMPLETION = answers.CompletionObject
_RECEIPT = answers.AsyncCompletionObject
_DELETED = Operation(answers={200: answers.DeletedObject}, errors=(errors.JobNotFound,))
_STREAM_QUERY = ("stream", "starting_after")
_DELIVERIES = webhooks.WebhookDeliveryList
_HEALTH = Operation(answers={200: answers.Health}, is_open=True)

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("post", "/v1/responses"): _create(
        ResponseRequest,
        _RESPONSE,
        _RESPONSE,
        errors.PreviousResponseNotFound,
        errors.ContextTooLarge,
        errors.ConversationNotFound,
        errors.ConversationLocked,
    ),
    ("get", "/v1/responses"): _list(answers.ResponseList, "model", "job_status", "metadata"),
    ("post", "/v1/responses/input_tokens"): Operation(
        body=InputTokensRequest,
        answers={200: answers.InputTokenCount},
        errors=(*_WITH_BODY, errors.ModelNotFound, errors.PreviousResponseNotFound, errors.ConversationNotFound),
    ),
    ("get", "/v1/responses/{response_id}"): _read(_RESPONSE, *_STREAM_QUERY, "include", "include_obfuscation"),
    ("post", "/v1/responses/{response_id}"): Operation(
        body=ResponseMove, answers={200: _RESPONSE}, errors=(*_WITH_BODY, errors.JobNotFound, errors.JobConflict)
    ),
    ("delete", "/v1/responses/{response_id}"): _DELETED,
    ("post", "/v1/responses/{response_id}/cancel"): Operation(
        answers={200: _RESPONSE}, errors=(errors.JobNotFound, errors.JobConflict)
    ),
    ("get", "/v1/responses/{response_id}/input_items"): _list(
        answers.InputItemList, "include", missing=errors.JobNotFound
    ),
    ("get", "/v1/responses/{response_id}/deliveries"): _list(_DELIVERIES, "status", missing=errors.JobNotFound),
    ("post", "/v1/conversations"): Operation(
        body=NewConversation,
        answers={200: conversations.ConversationObject},
        errors=(*_WITH_BODY, *_KEYED, errors.ConversationTooLarge, errors.InvalidEncryptedContent),
        is_keyed=True,
    ),
    ("get", "/v1/conversations/{conversation_id}"): _conversation_call(conversations.ConversationObject),
    ("post", "/v1/conversations/{conversation_id}"): _conversation_call(
        conversations.ConversationObject, ConversationUpdate
    ),
    ("delete", "/v1/conversations/{conversation_id}"): _conversation_call(answers.DeletedObject),
    ("post", "/v1/conversations/{conversation_id}/items"): msgspec.structs.replace(
        _conversation_call(
            conversations.ConversationItemList,
            NewItems,
            *_KEYED,
            errors.ConversationTooLarge,
            errors.InvalidEncryptedContent,
            query=("include",),
        ),
        is_keyed=True,
    ),
    ("get", "/v1/conversations/{conversation_id}/items"): _list(
        conversations.ConversationItemList, "include", missing=errors.ConversationNotFound
    ),
    ("get", "/v1/conversations/{conversation_id}/items/{item_id}"): _conversation_call(
        conversations.ConversationItem, query=("include",)
    ),
    ("delete", "/v1/conversations/{conversation_id}/items/{item_id}"): _conversation_call(
        conversations.ConversationObject
    ),
    ("get", "/v1/chat/completions"): _list(answers.ChatCompletionList, "model", "metadata"),
    ("post", "/v1/chat/completions"): _create(ChatRequest, _CHAT, _RECEIPT),
    ("post", "/v1/streaming/chat"): _create(ChatRequest, _CHAT, _RECEIPT, prefers=False),
    ("get", "/v1/chat/completions/{completion_id}"): _read(_CHAT, *_STREAM_QUERY),
    ("post", "/v1/chat/completions/{completion_id}"): Operation(
        body=MetadataUpdate, answers={200: _CHAT}, errors=(errors.JobNotFound, *_WITH_BODY)
    ),
    ("delete", "/v1/chat/completions/{completion_id}"): _DELETED,
    ("get", "/v1/chat/completions/{completion_id}/messages"): _list(
        answers.StoredMessageList, missing=errors.JobNotFound
    ),
    ("get", "/v1/chat/completions/{completion_id}/deliveries"): _list(
        _DELIVERIES, "status", missing=errors.JobNotFound
    ),
    ("post", "/v1/completions"): _create(CompletionRequest, _COMPLETION, _RECEIPT),
    ("post", "/v1/streaming/completions"): _create(CompletionRequest, _COMPLETION, _RECEIPT, prefers=False),
    ("get", "/v1/completions/{completion_id}"): _read(_COMPLETION, *_STREAM_QUERY),
    ("delete", "/v1/completions/{completion_id}"): _DELETED,
    ("get", "/v1/completions/{completion_id}/deliveries"): _list(_DELIVERIES, "status", missing=errors.JobNotFound),
    ("post", "/v1/async/completions"): Operation(
        body=CompletionRequest, answers={202: _RECEIPT}, errors=_CREATE, is_keyed=True
    ),
    ("get", "/v1/async/completions/{completion_id}"): _read(answers.AsyncCompletionAnswer, *_STREAM_QUERY),
    ("delete", "/v1/async/completions/{completion_id}"): _DELETED,
    ("get", "/v1/async/completions/{completion_id}/deliveries"): _list(
        _DELIVERIES, "status", missing=errors.JobNotFound
    ),
    ("post", "/v1/batches"): Operation(
        body=NewBatch,
        answers={200: batches.BatchObject},
        errors=(*_WITH_BODY, *_KEYED, errors.InvalidBatchLine, errors.FileNotFound),
        is_keyed=True,
    ),
    ("get", "/v1/batches"): Operation(answers={200: batches.BatchList}, query=("limit", "after")),
    ("get", "/v1/batches/{batch_id}"): _read(batches.BatchObject, missing=errors.BatchNotFound),
    ("post", "/v1/batches/{batch_id}/cancel"): Operation(
        answers={200: batches.BatchObject}, errors=(errors.BatchNotFound, errors.BatchConflict)
    ),
    ("post", "/v1/batches/{batch_id}/retry"): Operation(
        body=BatchRetry,
        answers={200: batches.BatchObject},
        errors=(*_WITH_BODY, *_KEYED, errors.BatchNotFound, errors.BatchConflict, errors.NothingToRetry),
        is_keyed=True,
    ),
    ("get", "/v1/batches/{batch_id}/requests"): Operation(
        answers={200: batches.BatchRequestList}, errors=(errors.BatchNotFound,), query=("limit", "after", "line_status")
    ),
    ("post", "/v1/embeddings"): _create(
        EmbeddingRequest, encoders.EmbeddingList, encoders.AsyncEncoderObject, streams=False
    ),
    ("get", "/v1/embeddings/{embedding_id}"): _read(encoders.EmbeddingList),
    ("delete", "/v1/embeddings/{embedding_id}"): _DELETED,
    ("get", "/v1/embeddings/{embedding_id}/deliveries"): _list(_DELIVERIES, "status", missing=errors.JobNotFound),
    ("post", "/v1/rerank"): _create(RerankRequest, encoders.RerankList, encoders.AsyncEncoderObject, streams=False),
    ("get", "/v1/rerank/{rerank_id}"): _read(encoders.RerankList),
    ("delete", "/v1/rerank/{rerank_id}"): _DELETED,
    ("get", "/v1/rerank/{rerank_id}/deliveries"): _list(_DELIVERIES, "status", missing=errors.JobNotFound),
    ("post", "/v1/score"): _create(ScoreRequest, encoders.ScoreList, encoders.AsyncEncoderObject, streams=False),
    ("get", "/v1/score/{score_id}"): _read(encoders.ScoreList),
    ("delete", "/v1/score/{score_id}"): _DELETED,
    ("get", "/v1/score/{score_id}/deliveries"): _list(_DELIVERIES, "status", missing=errors.JobNotFound),
    ("get", "/v1/models"): Operation(answers={200: answers.ModelList}),
    ("get", "/v1/models/{model}"): _read(answers.ModelObject, missing=errors.ModelNotFound),
    ("get", "/v1/files"): msgspec.structs.replace(_list(files.FileList, "purpose"), max_page=MAX_PAGE, page=MAX_PAGE),
    ("post", "/v1/files"): Operation(
        body=files.FileUpload,
        is_form=True,
        answers={200: files.FileObject},
        errors=(
            errors.FileTooLarge,
            errors.UnsupportedMediaType,
            errors.FileStorageFull,
            errors.TooManyTransfers,
            errors.UploadInterrupted,
        ),
    ),
    ("get", "/v1/files/{file_id}"): _read(files.FileObject, missing=errors.FileNotFound),
    ("get", "/v1/files/{file_id}/content"): Operation(
        answers={}, is_download=True, errors=(errors.FileNotFound, errors.TooManyTransfers)
    ),
    ("delete", "/v1/files/{file_id}"): Operation(
        answers={200: answers.DeletedObject}, errors=(errors.FileNotFound, errors.FileInUse)
    ),
    ("get", "/v1/webhook_endpoints"): _list(webhooks.WebhookEndpointList),
    ("post", "/v1/webhook_endpoints"): Operation(
        body=NewEndpoint,
        answers={200: webhooks.WebhookEndpointObject},
        errors=(*_WITH_BODY, *_KEYED, WebhookUrlRefused),
        is_keyed=True,
    ),
    ("get", "/v1/webhook_endpoints/{endpoint_id}"): _endpoint_call(None, webhooks.WebhookEndpointObject),
    ("post", "/v1/webhook_endpoints/{endpoint_id}"): _endpoint_call(
        EndpointUpdate, webhooks.WebhookEndpointObject, WebhookUrlRefused
    ),
    ("delete", "/v1/webhook_endpoints/{endpoint_id}"): _endpoint_call(None, answers.DeletedObject),
    ("post", "/v1/webhook_endpoints/{endpoint_id}/rotate_secret"): _endpoint_call(
        SecretRotation, webhooks.WebhookEndpointObject
    ),
    ("post", "/v1/webhook_endpoints/{endpoint_id}/test"): _endpoint_call(
        EndpointTest, webhooks.WebhookTestObject, WebhookUnanswered, WebhookEndpointDisabled
    ),
    ("post", "/v1/webhook_endpoints/{endpoint_id}/redeliver"): _endpoint_call(
        Redelivery, webhooks.RedeliveryObject, WebhookEndpointDisabled
    ),
    ("get", "/v1/webhook_endpoints/{endpoint_id}/deliveries"): _list(
        _DELIVERIES, "status", missing=WebhookEndpointNotFound
    ),
    ("get", "/v1/webhook_event_types"): Operation(answers={200: webhooks.EventTypeList}),
    ("get", "/v1/webhook_secret"): Operation(answers={200: webhooks.WebhookSecretObject}),
    ("post", "/v1/webhook_secret/rotate"): Operation(answers={200: webhooks.WebhookSecretObject}),
    ("get", "/v1/webhook_deliveries/{delivery_id}"): _read(
        webhooks.WebhookDeliveryObject, missing=WebhookDeliveryNotFound
    ),
    ("post", "/v1/webhook_deliveries/{delivery_id}/redeliver"): Operation(
        answers={200: webhooks.WebhookDeliveryObject},
        errors=(WebhookDeliveryNotFound, WebhookEndpointDisabled),
    ),
    ("get", "/healthz"): _HEALTH,
    ("get", "/readyz"): msgspec.structs.replace(_HEALTH, errors=(errors.StorageUnavailable,), query=("model",)),
}
