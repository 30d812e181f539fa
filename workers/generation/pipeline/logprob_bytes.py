"""Formats log probabilities: the engine ranks token ids, and the log holds token bytes."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from storage.contract import MIN_LOGPROB, Candidate, EventLogprobs, JobSpec, TokenLogprobs
from workers.engine.runner import Ranked
from workers.engine.sequence import SequenceOutput


class TokenBytes(Protocol):
    """The bytes of a vocabulary's tokens; see `workers.text.token_bytes`."""

    def is_spoken(self, token_id: int) -> bool:
        """Whether the token has text of its own."""

    def of(self, token_id: int, *, is_first: bool = False) -> bytes:
        """The token's bytes; is_first: whether no spoken token stands before it."""


class LogprobFormatter:
    """Formats the ranked tokens of one job, each choice's outputs in order.

    A text's first token may lose the space before it, so it is known of each choice whether its text has begun.
    """

    def __init__(self, spec: JobSpec) -> None:
        self._spec = spec
        self._begun: set[int] = set()
        self._emitted: dict[int, list[int]] = {}

    def resume(self, emitted: dict[int, list[int]]) -> None:
        """Go on after what earlier attempts emitted, by choice."""
        self._emitted = emitted

    def format(self, choice: int, output: SequenceOutput, token_bytes: TokenBytes) -> EventLogprobs:
        """The log probabilities of one output's event."""
        prompt = self._spec.prompts[choice // self._spec.num_choices]
        return EventLogprobs(
            tokens=self._tokens(choice, output.logprobs, token_bytes),
            prompt=_of_prompt(prompt, output.prompt_logprobs, token_bytes) if output.prompt_logprobs else (),
        )

    def _tokens(self, choice: int, ranked: Iterable[Ranked], token_bytes: TokenBytes) -> tuple[TokenLogprobs, ...]:
        # The text goes on from the prompt where that ends with text; see workers.text.detokenizer.
        before = (*self._spec.prompts[choice // self._spec.num_choices][-1:], *self._emitted.pop(choice, ()))
        if choice not in self._begun and any(token_bytes.is_spoken(token_id) for token_id in before):
            self._begun.add(choice)
        formatted = []
        for one in ranked:
            formatted.append(_with_bytes(one, token_bytes, is_first=choice not in self._begun))
            if token_bytes.is_spoken(one.token_id):
                self._begun.add(choice)
        return tuple(formatted)


def formatter_of(spec: JobSpec) -> LogprobFormatter | None:
    """A formatter for a job that asks for log probabilities; None for all others."""
    is_asked = spec.sampling.logprobs is not None or spec.sampling.prompt_logprobs is not None
    return LogprobFormatter(spec) if is_asked else None


def _of_prompt(prompt: Sequence[int], ranked: Sequence[Ranked], token_bytes: TokenBytes) -> tuple[TokenLogprobs, ...]:
    """Of each prompt token but the first; `ranked` is parallel to prompt[1:]."""
    first = next((place for place, token_id in enumerate(prompt) if token_bytes.is_spoken(token_id)), len(prompt))
    return tuple(_with_bytes(one, token_bytes, is_first=place <= first) for place, one in enumerate(ranked, start=1))


def _with_bytes(ranked: Ranked, token_bytes: TokenBytes, *, is_first: bool) -> TokenLogprobs:
    def candidate(token_id: int, logprob: float) -> Candidate:
        return Candidate(token_id, token_bytes.of(token_id, is_first=is_first), max(MIN_LOGPROB, logprob))

    return TokenLogprobs(candidate(ranked.token_id, ranked.logprob), tuple(candidate(*other) for other in ranked.top))
