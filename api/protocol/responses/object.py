"""The Response object, with every key that OpenAI or Open Responses requires.

Source: OpenAI specification of 2026-08-21; Open Responses 2026-04-24, whose strict keys may not be null.
"""

from collections.abc import Sequence
from typing import assert_never, cast

from api.protocol.answer.items import Item, ItemKind, call_id_of
from api.protocol.answer.logprobs import token_objects
from api.protocol.answer.outcome import Outcome
from api.protocol.responses.echoed_format import echoed_format
from api.protocol.responses.included import INCLUDED_LOGPROBS
from api.protocol.responses.stored_items import default_of
from api.protocol.responses.tool_echo import echoed_tools
from api.protocol.shared.envelope import SERVER_ERROR, failure_of
from api.protocol.shared.tiers import tier_of
from api.protocol.thinking.signed_thoughts import signed_thought
from api.protocol.tools.tool_names import split_name
from storage.contract import End, JobHeader, JobStatus, Usage
from storage.ids import suffix_of

_ID_PREFIXES = {ItemKind.TEXT: "msg_", ItemKind.REASONING: "rs_", ItemKind.CALL: "fc_"}
_CUSTOM_CALL_PREFIX = "ctc_"
# In a job's context: the key that signs its thoughts, where the request asks for their signed form.
THOUGHT_KEY = "thought_key"


def wants_logprobs(header: JobHeader) -> bool:
    """Whether the request asks for log probabilities."""
    return INCLUDED_LOGPROBS in cast(list[str], header.request.get("include", []))


def response_object(header: JobHeader, outcome: Outcome) -> dict[str, object]:
    """The response object, complete or with the output so far."""
    end = outcome.end
    status = header.status if end is None else end.status
    output = [item_object(header, item, item_status(item, status)) for item in output_items(outcome)]
    return response_body(header, status, output, end)


def output_items(outcome: Outcome) -> list[Item]:
    """The output items so far. Plain text is one message from the first tokens on; no ended answer is empty."""
    choice = outcome.choices[0]
    if choice.parsed is None:
        return choice.items if outcome.has_tokens or outcome.has_answer else []
    if not choice.items and outcome.has_answer:
        return [Item(ItemKind.TEXT)]
    return choice.items


def item_status(item: Item, status: JobStatus) -> str:
    """The status of an output item of a response whose status is `status`."""
    if item.is_complete:
        return "completed"
    if not status.is_terminal:
        return "in_progress"
    # Calls are complete only when the model has closed them.
    return "completed" if status is JobStatus.COMPLETED and item.kind is not ItemKind.CALL else "incomplete"


def item_id_of(job_id: str, item: Item) -> str:
    """The id of an output item, equal for every attempt."""
    prefix = _CUSTOM_CALL_PREFIX if item.is_custom else _ID_PREFIXES[item.kind]
    return prefix + suffix_of(job_id) + (f"n{item.number}" if item.number else "")


def item_object(header: JobHeader, item: Item, status: str) -> dict[str, object]:
    """An output item with its text or arguments so far."""
    if item.kind is ItemKind.CALL:
        return _call_object(header, item, status)
    return _with_content(header, item, status, [content_part(header, item)])


def opened_object(header: JobHeader, item: Item) -> dict[str, object]:
    """An output item as it is opened in a stream: without content."""
    if item.kind is ItemKind.CALL:
        empty = Item(item.kind, number=item.number, name=item.name, is_custom=item.is_custom)
        return _call_object(header, empty, "in_progress")
    # What follows an item is not known yet when it is opened.
    return _with_content(header, Item(item.kind, number=item.number), "in_progress", [])


def _with_content(header: JobHeader, item: Item, status: str, content: list[dict[str, object]]) -> dict[str, object]:
    item_id = item_id_of(header.job_id, item)
    if item.kind is ItemKind.REASONING:
        signed = _signed_thought(header, item, status)
        return {"id": item_id, "type": "reasoning", "summary": [], "content": content, "status": status, **signed}
    # The SDK parses no text into a format that is only said before a call.
    phase = {"phase": "commentary"} if item.is_before_call else {}
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", **phase, "content": content}


def _signed_thought(header: JobHeader, item: Item, status: str) -> dict[str, object]:
    """`encrypted_content` of a reasoning item that is done, where the request asks for it."""
    key = header.context.get(THOUGHT_KEY)
    if key is None or status == "in_progress":
        return {}
    return {"encrypted_content": signed_thought(item.text, cast(str, key))}


def _call_object(header: JobHeader, item: Item, status: str) -> dict[str, object]:
    namespace, name = split_name(item.name)
    named: dict[str, object] = {"call_id": call_id_of(header.job_id, 0, item.number), "name": name}
    if namespace is not None:
        named["namespace"] = namespace
    item_id = item_id_of(header.job_id, item)
    if item.is_custom:
        return {"id": item_id, "type": "custom_tool_call", **named, "input": item.text, "status": status}
    return {"id": item_id, "type": "function_call", **named, "arguments": item.text, "status": status}


def content_part(header: JobHeader, item: Item) -> dict[str, object]:
    """The content part of a message or of reasoning, with log probabilities if they were requested."""
    match item.kind:
        case ItemKind.TEXT:
            return text_part(item.text, token_objects(item.measured, header) if wants_logprobs(header) else ())
        case ItemKind.REASONING:
            return {"type": "reasoning_text", "text": item.text}
        case ItemKind.CALL:
            raise AssertionError("calls have no content parts")
        case _:
            assert_never(item.kind)


def text_part(text: str, logprobs: Sequence[dict[str, object]] = ()) -> dict[str, object]:
    """An `output_text` part."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


def response_body(
    header: JobHeader, status: JobStatus, output: list[dict[str, object]], end: End | None
) -> dict[str, object]:
    """A Response object of `status` with this output; keys in OpenAI's order."""
    return {
        "id": header.job_id,
        "object": "response",
        "created_at": header.created_at,
        "status": status.value,
        "background": header.background,
        "completed_at": end.ended_at if end is not None and status is JobStatus.COMPLETED else None,
        "error": _error_of(end),
        "incomplete_details": {"reason": "max_output_tokens"} if status is JobStatus.INCOMPLETE else None,
        "model": header.model,
        "output": output,
        **_echo_of(header),
        "usage": None if end is None or end.usage is None else usage_object(end.usage),
    }


def _echo_of(header: JobHeader) -> dict[str, object]:
    """Fields of the request that the object repeats, with the defaults of absent ones."""
    sent = header.request
    return {
        **_conversation_echo(sent),
        "frequency_penalty": sent.get("frequency_penalty", 0.0),
        "instructions": sent.get("instructions"),
        "max_output_tokens": sent.get("max_output_tokens"),
        "max_tool_calls": None,
        "metadata": sent.get("metadata", {}),
        "parallel_tool_calls": sent.get("parallel_tool_calls", True),
        "presence_penalty": sent.get("presence_penalty", 0.0),
        "previous_response_id": sent.get("previous_response_id"),
        "prompt_cache_key": sent.get("prompt_cache_key"),
        "reasoning": _reasoning_echo(sent),
        "safety_identifier": sent.get("safety_identifier"),
        "service_tier": tier_of(sent),
        "store": sent.get("store", True),
        "temperature": sent.get("temperature", default_of(header, "temperature")),
        "text": {"format": echoed_format(sent)},
        "tool_choice": sent.get("tool_choice", "auto"),
        "tools": echoed_tools(header),
        "top_logprobs": sent.get("top_logprobs", 0),
        "top_p": sent.get("top_p", default_of(header, "top_p")),
        "truncation": sent.get("truncation", "disabled"),
        "user": sent.get("user"),
    }


def _conversation_echo(sent: dict[str, object]) -> dict[str, object]:
    """The conversation of a turn; no key for other responses."""
    asked = sent.get("conversation")
    if asked is None:
        return {}
    return {"conversation": {"id": asked} if isinstance(asked, str) else asked}


def _reasoning_echo(sent: dict[str, object]) -> dict[str, object]:
    asked = cast(dict[str, object], sent.get("reasoning") or {})
    return {"effort": asked.get("effort"), "summary": asked.get("summary")}


def _error_of(end: End | None) -> dict[str, object] | None:
    """The `error` object. The specification allows few values of `code`; the message has the details."""
    if end is None or end.status is not JobStatus.FAILED:
        return None
    return {"code": SERVER_ERROR, "message": failure_of(end).message}


def usage_object(usage: Usage) -> dict[str, object]:
    """The `usage` object of Responses."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
