"""The chat.completion object, complete or so far."""

from collections.abc import Iterable
from typing import cast

from api.protocol.shared.envelope import outcome_error
from api.protocol.shared.logprobs import token_objects, wants_logprobs
from api.protocol.shared.outcome import ChoiceText, Outcome
from api.protocol.shared.tiers import tier_of
from storage.contract import JobHeader, JobStatus, TokenEvent, Usage

# Seeded answers of our engine are reproducible, so the fingerprint is constant.
SYSTEM_FINGERPRINT = "fp_tokenpost"


def num_chat_choices(header: JobHeader) -> int:
    """Number of choices that the request asked for."""
    return cast(int, header.request.get("n", 1))


def wants_usage(header: JobHeader) -> bool:
    """Whether the request's `stream_options` ask for a chunk of usage."""
    options = cast(dict[str, object], header.request.get("stream_options", {}))
    return bool(options.get("include_usage"))


def chat_object(header: JobHeader, outcome: Outcome, metadata: dict[str, str] | None = None) -> dict[str, object]:
    """The chat.completion object. Without an answer it also has `status`, and `error` if the job failed.

    metadata: the current metadata; None when it was never changed
    """
    end = outcome.end
    return {
        "id": header.job_id,
        "object": "chat.completion",
        "created": header.created_at,
        "model": header.model,
        "choices": [_choice_of(header, outcome, index, choice) for index, choice in enumerate(outcome.choices)],
        "usage": None if end is None or end.usage is None else completion_usage(end.usage),
        "metadata": header.request.get("metadata", {}) if metadata is None else metadata,
        "service_tier": tier_of(header.request),
        "system_fingerprint": SYSTEM_FINGERPRINT,
        **unanswered(header, outcome),
    }


def _choice_of(header: JobHeader, outcome: Outcome, index: int, choice: ChoiceText) -> dict[str, object]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": choice.text, "refusal": None, "annotations": []},
        "logprobs": chat_logprobs(header, choice.measured) if wants_logprobs(header) else None,
        "finish_reason": outcome.finish_reason(choice),
    }


def chat_logprobs(header: JobHeader, events: Iterable[TokenEvent]) -> dict[str, object]:
    """The `logprobs` of a choice or a chunk that holds these events."""
    return {"content": token_objects(events, header), "refusal": None}


def completion_usage(usage: Usage) -> dict[str, object]:
    """The `usage` object of Chat and Completions."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def unanswered(header: JobHeader, outcome: Outcome) -> dict[str, object]:
    """`status` and `error`, our extra keys of a completion without an answer."""
    if outcome.has_answer:
        return {}
    status: JobStatus = header.status if outcome.end is None else outcome.end.status
    error = None if outcome.end is None else outcome_error(outcome.end)
    return {"status": status.value} if error is None else {"status": status.value, **error}
