"""The Response object, with every key that OpenAI or Open Responses requires.

Source: OpenAI specification of 2026-08-21; Open Responses 2026-04-24, whose strict keys may not be null.
"""

from collections.abc import Sequence

from api.protocol.shared.envelope import SERVER_ERROR, failure_of
from api.protocol.shared.logprobs import token_objects, wants_logprobs
from api.protocol.shared.outcome import ChoiceText, Outcome
from api.protocol.shared.tiers import tier_of
from storage.contract import End, JobHeader, JobStatus, Usage
from storage.ids import suffix_of


def message_id_of(job_id: str) -> str:
    """The id of a response's message, equal for every attempt."""
    return "msg_" + suffix_of(job_id)


def response_object(header: JobHeader, outcome: Outcome) -> dict[str, object]:
    """The response object, complete or with the text so far."""
    end = outcome.end
    status = header.status if end is None else end.status
    part = answer_part(header, outcome.choices[0])
    output = [message_item(header.job_id, item_status(status), part)] if has_message(outcome) else []
    return response_body(header, status, output, end)


def has_message(outcome: Outcome) -> bool:
    """Whether the output has a message: true after the first tokens, and for every ended answer."""
    return outcome.has_tokens or outcome.has_answer


def item_status(status: JobStatus) -> str:
    """The message status of a response whose status is `status`."""
    if not status.is_terminal:
        return "in_progress"
    return "completed" if status is JobStatus.COMPLETED else "incomplete"


def message_item(job_id: str, status: str, part: dict[str, object] | None) -> dict[str, object]:
    """An output message; without content while `part` is None."""
    content = [] if part is None else [part]
    return {
        "id": message_id_of(job_id),
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": content,
    }


def text_part(text: str, logprobs: Sequence[dict[str, object]] = ()) -> dict[str, object]:
    """An `output_text` part."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


def answer_part(header: JobHeader, choice: ChoiceText) -> dict[str, object]:
    """The content part of the answer so far, with log probabilities if they were requested."""
    return text_part(choice.text, token_objects(choice.measured, header) if wants_logprobs(header) else ())


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
        **_echo_of(header.request),
        "usage": None if end is None or end.usage is None else usage_object(end.usage),
    }


def _echo_of(sent: dict[str, object]) -> dict[str, object]:
    """Fields of the request that the object repeats, with the defaults of absent ones."""
    return {
        "frequency_penalty": sent.get("frequency_penalty", 0.0),
        "instructions": sent.get("instructions"),
        "max_output_tokens": sent.get("max_output_tokens"),
        "max_tool_calls": None,
        "metadata": sent.get("metadata", {}),
        "parallel_tool_calls": True,
        "presence_penalty": sent.get("presence_penalty", 0.0),
        "previous_response_id": sent.get("previous_response_id"),
        "prompt_cache_key": sent.get("prompt_cache_key"),
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": sent.get("safety_identifier"),
        "service_tier": tier_of(sent),
        "store": sent.get("store", True),
        "temperature": sent.get("temperature", 1.0),
        "text": {"format": {"type": "text"}},
        "tool_choice": sent.get("tool_choice", "auto"),
        "tools": [],
        "top_logprobs": sent.get("top_logprobs", 0),
        "top_p": sent.get("top_p", 1.0),
        "truncation": sent.get("truncation", "disabled"),
        "user": sent.get("user"),
    }


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
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
