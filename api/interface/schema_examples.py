"""Examples of requests and answers for the OpenAPI schema; a test validates each against its schema."""

from collections.abc import Mapping

Example = dict[str, object]

JOB_ID = "resp_019a2b3c4d5e6f7a8b9c0d1e2f3a4b5c"
_CHAT_ID = "chatcmpl-019a2b3c4d5e6f7a8b9c0d1e2f3a4b5c"
_COMPLETION_ID = "cmpl-019a2b3c4d5e6f7a8b9c0d1e2f3a4b5c"
_CONVERSATION_ID = "conv_019a2b3c4d5e6f7a8b9c0d1e2f3a4b5c"
_EMBEDDING_ID = "embd-019a2b3c4d5e6f7a8b9c0d1e2f3a4b5c"
_ENDPOINT_ID = "we_019a2b3c4d5e6f7a8b9c0d1e2f3a4b5c"
_DELIVERY_ID = "wd_019a2b3c4d5e6f7a8b9c0d1e2f3a4b5c"
_CREATED = 1_796_083_200
_FILE_ID = "file-019a2b3c4d5e6f7a8b9c0d1e2f3a4b5c"
_BATCH_ID = "batch_019a2b3c4d5e6f7a8b9c0d1e2f3a4b5c"
_URL = "https://app.example/webhooks"
_MESSAGES = [{"role": "user", "content": "Who are you?"}]
_TEXT = "I am a small language model."
_USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 8,
    "total_tokens": 20,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}

REQUESTS: Mapping[str, Example] = {
    "ResponseRequest": {"model": "smollm2", "input": "Who are you?", "max_output_tokens": 64},
    "InputTokensRequest": {"model": "smollm2", "input": "Who are you?"},
    "ResponseMove": {"service_tier": "priority"},
    "ChatRequest": {"model": "smollm2", "messages": _MESSAGES, "max_completion_tokens": 64},
    "MetadataUpdate": {"metadata": {"topic": "greeting"}},
    "CompletionRequest": {"model": "smollm2", "prompt": "Once upon a time", "max_tokens": 64},
    "NewBatch": {"endpoint": "/v1/responses", "completion_window": "24h", "input_file_id": _FILE_ID},
    "BatchRetry": {"completion_window": "24h"},
    "EmbeddingRequest": {"model": "minilm", "input": ["Who are you?", "A small model."], "encoding_format": "float"},
    "RerankRequest": {"model": "minilm", "query": "Who sleeps?", "documents": ["A cat sleeps.", "Dogs bark."]},
    "ScoreRequest": {"model": "minilm", "text_1": "A cat sleeps.", "text_2": ["The kitten naps.", "Dogs bark."]},
    "NewConversation": {"items": _MESSAGES, "metadata": {"topic": "greeting"}},
    "ConversationUpdate": {"metadata": {"topic": "farewell"}},
    "NewItems": {"items": _MESSAGES},
    "FileUpload": {"purpose": "batch", "file": "..."},
    "NewEndpoint": {"name": "main", "url": _URL, "event_types": ["response.completed"]},
    "EndpointUpdate": {"enabled": False},
    "SecretRotation": {"keep_old_secret_active_for_24_hours": True},
    "EndpointTest": {"event_type": "response.completed"},
    "Redelivery": {"since": _CREATED, "status": "dead"},
}

_RESPONSE: Example = {
    "id": JOB_ID,
    "object": "response",
    "created_at": _CREATED,
    "status": "completed",
    "background": False,
    "completed_at": _CREATED + 1,
    "error": None,
    "incomplete_details": None,
    "model": "smollm2",
    "output": [
        {
            "id": "msg_019a2b3c4d5e6f7a8b9c0d1e2f3a4b5c",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": _TEXT, "annotations": [], "logprobs": []}],
        }
    ],
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "instructions": None,
    "max_output_tokens": 64,
    "metadata": {},
    "previous_response_id": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "top_p": 1.0,
    "usage": {
        "input_tokens": 12,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 8,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 20,
    },
}
_CHAT: Example = {
    "id": _CHAT_ID,
    "object": "chat.completion",
    "created": _CREATED,
    "model": "smollm2",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": _TEXT, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": _USAGE,
    "metadata": {},
    "service_tier": "default",
    "system_fingerprint": "fp_tokenpost",
}
_COMPLETION: Example = {
    "id": _COMPLETION_ID,
    "object": "text_completion",
    "created": _CREATED,
    "model": "smollm2",
    "choices": [{"index": 0, "text": " there was a fox.", "logprobs": None, "finish_reason": "stop"}],
    "usage": _USAGE,
    "system_fingerprint": "fp_tokenpost",
}
_MODEL: Example = {
    "id": "smollm2",
    "object": "model",
    "created": _CREATED,
    "owned_by": "tokenpost",
    "capabilities": {"chat": True, "completion": True, "tools": True, "reasoning": False, "structured_output": True},
    "tool_format": "generic",
    "context_length": 4096,
    "dimensions": None,
    "status": "ready",
    "status_reason": None,
}
_MESSAGE: Example = {"id": f"{_CHAT_ID}-0", "role": "user", "content": "Who are you?", "content_parts": None}
_ITEM: Example = {
    "id": "msg_019a2b3c4d5e6f7a8b9c0d1e2f3a4b5ci0",
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": "Who are you?"}],
}
_BATCH: Example = {
    "id": _BATCH_ID,
    "object": "batch",
    "endpoint": "/v1/responses",
    "model": "smollm2",
    "errors": None,
    "input_file_id": _FILE_ID,
    "completion_window": "24h",
    "status": "in_progress",
    "output_file_id": None,
    "error_file_id": None,
    "created_at": _CREATED,
    "in_progress_at": _CREATED + 1,
    "expires_at": _CREATED + 86400,
    **dict.fromkeys(
        ("finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at", "usage")
    ),
    "request_counts": {"total": 2, "completed": 1, "failed": 0},
    "metadata": None,
    "priority": 10,
    "retry_of": None,
}
_BATCH_REQUEST: Example = {
    "id": "batch_req_019a2b3c4d5e6f7a8b9c0d1e2f3a4b5c_1",
    "object": "batch.request",
    "custom_id": "first",
    "line": 1,
    "status": "completed",
    "job_id": JOB_ID,
    "status_code": 200,
}
_ENDPOINT: Example = {
    "id": _ENDPOINT_ID,
    "object": "webhook_endpoint",
    "created_at": _CREATED,
    "updated_at": _CREATED,
    "name": "main",
    "url": _URL,
    "event_types": ["response.completed"],
    "signing_secret_hint": "whsec_...mZ8w",
    "enabled": True,
    "disabled_reason": None,
}
_FILE: Example = {
    "id": "file-019a2b3c4d5e6f7a8b9c0d1e2f3a4b5c",
    "object": "file",
    "bytes": 120,
    "created_at": _CREATED,
    "expires_at": _CREATED + 30 * 86400,
    "filename": "lines.jsonl",
    "purpose": "batch",
    "status": "processed",
    "status_details": None,
}
_DELIVERY: Example = {
    "id": _DELIVERY_ID,
    "object": "webhook_delivery",
    "created_at": _CREATED,
    "event_id": "evt_019a2b3c4d5e6f7a8b9c0d1e2f3a4b5c",
    "event_type": "response.completed",
    "job_id": JOB_ID,
    "webhook_endpoint_id": _ENDPOINT_ID,
    "url": _URL,
    "status": "delivered",
    "next_attempt_at": None,
    "ended_at": _CREATED + 2,
    "num_attempts": 1,
    "attempts": [
        {
            "number": 1,
            "started_at": _CREATED + 2,
            "latency_ms": 12,
            "status_code": 200,
            "error": None,
            "answer": "ok",
        }
    ],
}


def _page(item: Example) -> Example:
    return {"object": "list", "data": [item], "first_id": item["id"], "last_id": item["id"], "has_more": False}


ANSWERS: Mapping[str, Example] = {
    "ResponseObject": _RESPONSE,
    "ChatCompletionObject": _CHAT,
    "CompletionObject": _COMPLETION,
    "AsyncCompletionObject": {
        "id": _COMPLETION_ID,
        "object": "async.completion",
        "status": "queued",
        "created_at": _CREATED,
        "model": "smollm2",
        "tokenpost_queue": {"position": 3, "estimated_start_at": _CREATED + 4},
    },
    "AsyncCompletionAnswer": _COMPLETION,
    "EmbeddingList": {
        "id": _EMBEDDING_ID,
        "object": "list",
        "created": _CREATED,
        "model": "minilm",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.0125, -0.25, 0.5]}],
        "usage": {"prompt_tokens": 6, "total_tokens": 6},
    },
    "RerankList": {
        "id": "rerank-019a2b3c4d5e6f7a8b9c0d1e2f3a4b5c",
        "object": "list",
        "created": _CREATED,
        "model": "minilm",
        "results": [{"index": 0, "relevance_score": 0.75, "document": {"text": "A cat sleeps."}}],
        "usage": {"prompt_tokens": 16, "total_tokens": 16},
    },
    "ScoreList": {
        "id": "score-019a2b3c4d5e6f7a8b9c0d1e2f3a4b5c",
        "object": "list",
        "created": _CREATED,
        "model": "minilm",
        "data": [{"index": 0, "object": "score", "score": 0.75}],
        "usage": {"prompt_tokens": 16, "total_tokens": 16},
    },
    "AsyncEncoderObject": {
        "id": _EMBEDDING_ID,
        "object": "async.embedding",
        "status": "queued",
        "created_at": _CREATED,
        "model": "minilm",
    },
    "InputTokenCount": {"object": "response.input_tokens", "input_tokens": 12},
    "DeletedObject": {"id": JOB_ID, "object": "response", "deleted": True},
    "ModelObject": _MODEL,
    "ModelList": {"object": "list", "data": [_MODEL]},
    "ResponseList": _page(_RESPONSE),
    "InputItemList": _page(_ITEM),
    "BatchObject": _BATCH,
    "BatchList": _page(_BATCH),
    "BatchRequestList": _page(_BATCH_REQUEST),
    "ConversationObject": {
        "id": _CONVERSATION_ID,
        "object": "conversation",
        "created_at": _CREATED,
        "metadata": {"topic": "greeting"},
    },
    "ConversationItem": _ITEM,
    "ConversationItemList": _page(_ITEM),
    "StoredMessageList": _page(_MESSAGE),
    "ChatCompletionList": _page(_CHAT),
    "FileObject": _FILE,
    "FileList": _page(_FILE),
    "Health": {"status": "ok"},
    "WebhookEndpointObject": _ENDPOINT,
    "WebhookEndpointList": _page(_ENDPOINT),
    "WebhookDeliveryObject": _DELIVERY,
    "WebhookDeliveryList": _page(_DELIVERY),
    "WebhookTestObject": {
        "object": "webhook_endpoint.test",
        "webhook_endpoint_id": _ENDPOINT_ID,
        "event_type": "response.completed",
        "status_code": 200,
        "success": True,
    },
    "RedeliveryObject": {
        "object": "webhook_endpoint.redelivery",
        "webhook_endpoint_id": _ENDPOINT_ID,
        "num_deliveries": 2,
    },
    "WebhookSecretObject": {
        "object": "webhook_secret",
        "signing_secret": "whsec_c2VjcmV0IG9mIGFuIGV4YW1wbGU=",
        "signing_secret_hint": "whsec_...bXBs",
    },
    "EventTypeList": {"object": "list", "data": ["response.completed", "response.failed"]},
}

STREAM = (
    'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":{...}}\n\n'
    'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"I am"}\n\n'
    "data: [DONE]\n\n"
)
