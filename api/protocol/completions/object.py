"""The text_completion object, complete or so far, and the receipt of an asynchronous completion."""

from typing import cast

from api.protocol.chat.object import SYSTEM_FINGERPRINT, completion_usage, unanswered
from api.protocol.completions.completion_logprobs import CompletionLogprobs
from api.protocol.shared.envelope import outcome_error
from api.protocol.shared.logprobs import wants_logprobs
from api.protocol.shared.outcome import ChoiceText, Outcome
from api.protocol.shared.tiers import tier_of
from storage.contract import MIN_LOGPROB, End, JobHeader, TokenEvent


def num_completion_choices(header: JobHeader) -> int:
    """Number of choices of all prompts together, those that will not be shown included."""
    return cast(int, header.context.get("num_prompts", 1)) * _num_made(header)


def _num_made(header: JobHeader) -> int:
    """Choices that are made of each prompt."""
    return cast(int, header.request.get("best_of", _num_shown(header)))


def _num_shown(header: JobHeader) -> int:
    """Choices of each prompt that the caller sees."""
    return cast(int, header.request.get("n", 1))


def is_chosen_from(header: JobHeader) -> bool:
    """Whether `best_of` makes more choices than it shows, so that nothing can be shown before the end."""
    return _num_made(header) > _num_shown(header)


def echo_of(header: JobHeader, choice: int) -> str:
    """The prompt's text that stands before a choice's own when `echo` was asked for, else nothing."""
    texts = cast(list[str], header.context.get("prompt_texts", []))
    return texts[choice // _num_made(header)] if texts else ""


def logprobs_of(header: JobHeader, choice: int) -> CompletionLogprobs:
    """What tells a choice's log probabilities."""
    return CompletionLogprobs(header, choice // _num_made(header), echo_of(header, choice))


def completion_object(header: JobHeader, outcome: Outcome) -> dict[str, object]:
    """The completion; one without an answer also tells its `status`, and its `error` when it failed."""
    end = outcome.end
    shown = _shown_of(header, outcome)
    return {
        "id": header.job_id,
        "object": "text_completion",
        "created": header.created_at,
        "model": header.model,
        "choices": [_choice_of(header, outcome, index, choice) for index, choice in enumerate(shown)],
        "usage": None if end is None or end.usage is None else completion_usage(end.usage),
        **asked_tier(header),
        "system_fingerprint": SYSTEM_FINGERPRINT,
        **unanswered(header, outcome),
    }


def asked_tier(header: JobHeader) -> dict[str, object]:
    """The tier, where the request named one: OpenAI's object has none, vLLM's has it so."""
    return {"service_tier": tier_of(header.request)} if "service_tier" in header.request else {}


def _shown_of(header: JobHeader, outcome: Outcome) -> list[int]:
    """The choices to show, of each prompt the best first where there are more; none before they can be chosen."""
    if not is_chosen_from(header):
        return list(range(len(outcome.choices)))
    if not outcome.has_answer:
        return []
    num_made, num_shown = _num_made(header), _num_shown(header)
    shown = []
    for start in range(0, len(outcome.choices), num_made):
        made = range(start, start + num_made)
        shown += sorted(made, key=lambda index: -_mean_logprob(outcome.choices[index]))[:num_shown]
    return shown


def _mean_logprob(choice: ChoiceText) -> float:
    """How likely the choice is, its end included, whatever its length; the least for one without tokens."""
    found = [token.chosen.logprob for event in choice.measured if event.logprobs for token in event.logprobs.tokens]
    return sum(found) / len(found) if found else MIN_LOGPROB


def _choice_of(header: JobHeader, outcome: Outcome, index: int, number: int) -> dict[str, object]:
    choice = outcome.choices[number]
    logprobs = None
    if wants_logprobs(header):
        logprobs = logprobs_of(header, number).tell(
            choice.measured or [TokenEvent(choice=number, token_ids=(), text="")]
        )
    return {
        "text": echo_of(header, number) + choice.text,
        "index": index,
        "logprobs": logprobs,
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
