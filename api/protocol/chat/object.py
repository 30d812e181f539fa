"""The chat.completion object, complete or so far, and the messages of a stored chat."""

from collections.abc import Iterable
from typing import cast

from api.protocol.answer.completion_parts import SYSTEM_FINGERPRINT, unanswered, usage_of
from api.protocol.answer.items import Item, ItemKind, call_id_of
from api.protocol.answer.logprobs import token_objects
from api.protocol.answer.outcome import ChoiceAnswer, Outcome
from api.protocol.shared.tiers import tier_of
from storage.contract import FinishReason, JobHeader, TokenEvent


def num_chat_choices(header: JobHeader) -> int:
    """Number of choices that the request asked for."""
    return cast(int, header.request.get("n", 1))


def wants_logprobs(header: JobHeader) -> bool:
    """Whether the request asks for log probabilities."""
    return bool(header.request.get("logprobs"))


def shows_thoughts(header: JobHeader) -> bool:
    """Whether the answer shows its thoughts; they are counted in any case."""
    asked = (header.request.get(name) for name in ("include_reasoning", "separate_reasoning"))
    return all(one is not False for one in asked)


def chat_object(header: JobHeader, outcome: Outcome, metadata: dict[str, str] | None = None) -> dict[str, object]:
    """The chat.completion object. Without an answer it also has `status`, and `error` if the job failed.

    metadata: the current metadata; None when it was never changed
    """
    return {
        "id": header.job_id,
        "object": "chat.completion",
        "created": header.created_at,
        "model": header.model,
        "choices": [_choice_of(header, outcome, index, choice) for index, choice in enumerate(outcome.choices)],
        "usage": usage_of(outcome),
        "metadata": header.request.get("metadata", {}) if metadata is None else metadata,
        "service_tier": tier_of(header.request),
        "system_fingerprint": SYSTEM_FINGERPRINT,
        **unanswered(header, outcome),
    }


def _choice_of(header: JobHeader, outcome: Outcome, index: int, choice: ChoiceAnswer) -> dict[str, object]:
    measured = [event for item in choice.items for event in item.measured]
    return {
        "index": index,
        "message": _message_of(header, index, choice),
        "logprobs": chat_logprobs(header, measured) if wants_logprobs(header) else None,
        "finish_reason": chat_finish_reason(outcome, choice),
    }


def _message_of(header: JobHeader, index: int, choice: ChoiceAnswer) -> dict[str, object]:
    text, reasoning = choice.text, choice.text_of(ItemKind.REASONING)
    calls = [call_object(header, index, item) for item in choice.items if item.kind is ItemKind.CALL]
    message: dict[str, object] = {
        "role": "assistant",
        "content": text if text or not calls else None,
        "refusal": None,
        "annotations": [],
    }
    if reasoning and shows_thoughts(header):
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    return message


def call_object(header: JobHeader, choice: int, item: Item) -> dict[str, object]:
    """An entry of `tool_calls` with the arguments so far."""
    call_id = call_id_of(header.job_id, choice, item.number)
    if item.is_custom:
        return {"id": call_id, "type": "custom", "custom": {"name": item.name, "input": item.text}}
    return {"id": call_id, "type": "function", "function": {"name": item.name, "arguments": item.text}}


def chat_finish_reason(outcome: Outcome, choice: ChoiceAnswer) -> str | None:
    """The `finish_reason` of a choice: `tool_calls` where a choice that was not cut off has calls."""
    reason = outcome.finish_reason(choice)
    has_calls = choice.parsed is not None and any(item.kind is ItemKind.CALL for item in choice.items)
    return "tool_calls" if has_calls and reason == FinishReason.STOP else reason


def chat_logprobs(header: JobHeader, events: Iterable[TokenEvent]) -> dict[str, object]:
    """The `logprobs` of a choice or a chunk that holds these events."""
    return {"content": token_objects(events, header), "refusal": None}


def messages_of(header: JobHeader) -> list[dict[str, object]]:
    """The input messages of a stored chat completion, oldest first."""
    messages = cast(list[dict[str, object]], header.request.get("messages", []))
    return [_stored_message(f"{header.job_id}-{index}", message) for index, message in enumerate(messages)]


def _stored_message(message_id: str, message: dict[str, object]) -> dict[str, object]:
    content = message.get("content")
    has_parts = isinstance(content, list)
    return {
        "id": message_id,
        "role": message["role"],
        "content": None if has_parts else content,
        "name": message.get("name"),
        "content_parts": content if has_parts else None,
        "refusal": None,
        **{name: message[name] for name in ("tool_calls", "tool_call_id") if message.get(name)},
    }
