"""Parts that the objects and streams of Chat and Completions share: usage, status and error, the async.completion
receipt, stream options."""

from typing import cast

from api.protocol.answer.outcome import Outcome
from api.protocol.shared.envelope import outcome_error
from api.protocol.shared.tiers import tier_of
from storage.contract import End, JobHeader, JobStatus, Usage

# Seeded answers of our engine are reproducible, so the fingerprint is constant.
SYSTEM_FINGERPRINT = "fp_tokenpost"


def wants_usage(header: JobHeader) -> bool:
    """Whether the request's `stream_options` ask for a chunk of usage."""
    options = cast(dict[str, object], header.request.get("stream_options", {}))
    return bool(options.get("include_usage"))


def completion_usage(usage: Usage) -> dict[str, object]:
    """The `usage` object of Chat and Completions."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def usage_of(outcome: Outcome) -> dict[str, object] | None:
    """The `usage` object of an outcome; None until the job has counted its tokens."""
    end = outcome.end
    return None if end is None or end.usage is None else completion_usage(end.usage)


def unanswered(header: JobHeader, outcome: Outcome) -> dict[str, object]:
    """`status` and `error`, our extra keys of a completion without an answer."""
    if outcome.has_answer:
        return {}
    status: JobStatus = header.status if outcome.end is None else outcome.end.status
    error = None if outcome.end is None else outcome_error(outcome.end)
    return {"status": status.value} if error is None else {"status": status.value, **error}


def asked_tier(header: JobHeader) -> dict[str, object]:
    """The service tier if the request named one. OpenAI's object has none; vLLM's object has it."""
    return {"service_tier": tier_of(header.request)} if "service_tier" in header.request else {}


def async_object(header: JobHeader, end: End | None = None) -> dict[str, object]:
    """The receipt of a chat or completion job without an answer; with `error` if it failed."""
    status = header.status if end is None else end.status
    error = None if end is None else outcome_error(end)
    return {
        "id": header.job_id,
        "object": "async.completion",
        "status": status.value,
        "created_at": header.created_at,
        "model": header.model,
        **(error or {}),
    }
