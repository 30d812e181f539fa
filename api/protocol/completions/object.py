"""The text_completion object, complete or so far."""

from typing import cast

from api.protocol.answer.completion_parts import SYSTEM_FINGERPRINT, asked_tier, unanswered, usage_of
from api.protocol.answer.outcome import ChoiceAnswer, Outcome
from api.protocol.completions.completion_logprobs import CompletionLogprobs
from storage.contract import MIN_LOGPROB, JobHeader, TokenEvent


def num_completion_choices(header: JobHeader) -> int:
    """Number of generated choices of all prompts together, including those that are not returned."""
    return cast(int, header.context.get("num_prompts", 1)) * _num_generated(header)


def _num_generated(header: JobHeader) -> int:
    """Number of choices to generate for each prompt."""
    return cast(int, header.request.get("best_of", _num_returned(header)))


def _num_returned(header: JobHeader) -> int:
    """Number of choices to return for each prompt."""
    return cast(int, header.request.get("n", 1))


def wants_logprobs(header: JobHeader) -> bool:
    """Whether the request asks for log probabilities."""
    return "logprobs" in header.request


def is_chosen_from(header: JobHeader) -> bool:
    """Whether `best_of` generates more choices than are returned; then no choice is known before the end."""
    return _num_generated(header) > _num_returned(header)


def echo_of(header: JobHeader, choice: int) -> str:
    """The prompt's text with which the choice begins if the request has `echo`, else ""."""
    texts = cast(list[str], header.context.get("prompt_texts", []))
    return texts[choice // _num_generated(header)] if texts else ""


def logprobs_of(header: JobHeader, choice: int) -> CompletionLogprobs:
    """The formatter of a choice's log probabilities."""
    return CompletionLogprobs(header, choice // _num_generated(header), echo_of(header, choice))


def completion_object(header: JobHeader, outcome: Outcome) -> dict[str, object]:
    """The text_completion object. Without an answer it also has `status`, and `error` if the job failed."""
    shown = _shown_of(header, outcome)
    return {
        "id": header.job_id,
        "object": "text_completion",
        "created": header.created_at,
        "model": header.model,
        "choices": [_choice_of(header, outcome, index, choice) for index, choice in enumerate(shown)],
        "usage": usage_of(outcome),
        **asked_tier(header),
        "system_fingerprint": SYSTEM_FINGERPRINT,
        **unanswered(header, outcome),
    }


def _shown_of(header: JobHeader, outcome: Outcome) -> list[int]:
    """Indices of the choices to return, of each prompt the best first; none before `best_of` can choose."""
    if not is_chosen_from(header):
        return list(range(len(outcome.choices)))
    if not outcome.has_answer:
        return []
    num_generated, num_returned = _num_generated(header), _num_returned(header)
    shown = []
    for start in range(0, len(outcome.choices), num_generated):
        generated = range(start, start + num_generated)
        shown += sorted(generated, key=lambda index: -_mean_logprob(outcome.choices[index]))[:num_returned]
    return shown


def _mean_logprob(choice: ChoiceAnswer) -> float:
    """The mean log probability of the choice's tokens, end included; the minimum for a choice without tokens."""
    found = [token.chosen.logprob for event in choice.measured if event.logprobs for token in event.logprobs.tokens]
    return sum(found) / len(found) if found else MIN_LOGPROB


def _choice_of(header: JobHeader, outcome: Outcome, index: int, number: int) -> dict[str, object]:
    choice = outcome.choices[number]
    logprobs = None
    if wants_logprobs(header):
        logprobs = logprobs_of(header, number).push(
            choice.measured or [TokenEvent(choice=number, token_ids=(), text="")]
        )
    return {
        "text": echo_of(header, number) + choice.text,
        "index": index,
        "logprobs": logprobs,
        "finish_reason": outcome.finish_reason(choice),
    }
