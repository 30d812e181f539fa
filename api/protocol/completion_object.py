"""The text_completion object, complete or so far, and the receipt of an asynchronous completion."""

from typing import cast

from api.protocol.chat_object import SYSTEM_FINGERPRINT, completion_usage, unanswered
from api.protocol.envelope import outcome_error
from api.protocol.outcome import ChoiceText, Outcome
from storage.contract import End, JobHeader


def num_completion_choices(header: JobHeader) -> int:
    """Number of choices of all prompts together."""
    return cast(int, header.context.get("num_prompts", 1)) * cast(int, header.request.get("n", 1))


def echo_of(header: JobHeader, choice: int) -> str:
    """The prompt's text that stands before a choice's own when `echo` was asked for, else nothing."""
    texts = cast(list[str], header.context.get("prompt_texts", []))
    return texts[choice // cast(int, header.request.get("n", 1))] if texts else ""


def completion_object(header: JobHeader, outcome: Outcome) -> dict[str, object]:
    """The completion; one without an answer also tells its `status`, and its `error` when it failed."""
    end = outcome.end
    choices = enumerate(outcome.choices)
    return {
        "id": header.job_id,
        "object": "text_completion",
        "created": header.created_at,
        "model": header.model,
        "choices": [_choice_of(header, outcome, index, choice) for index, choice in choices],
        "usage": None if end is None or end.usage is None else completion_usage(end.usage),
        "system_fingerprint": SYSTEM_FINGERPRINT,
        **unanswered(header, outcome),
    }


def _choice_of(header: JobHeader, outcome: Outcome, index: int, choice: ChoiceText) -> dict[str, object]:
    return {
        "text": echo_of(header, index) + choice.text,
        "index": index,
        "logprobs": None,
        "finish_reason": outcome.finish_word(choice),
    }


def async_object(header: JobHeader, end: End | None = None) -> dict[str, object]:
    """What `/v1/async/completions` answers until there is a completion; with `error` when there never will be one."""
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
