"""Log probabilities on their way from the engine, which ranks ids, to the log, which tells bytes."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from storage.contract import MIN_LOGPROB, Candidate, EventLogprobs, JobSpec, TokenLogprobs
from workers.engine.runner import Ranked
from workers.engine.sequence import SequenceOutput


class Spelling(Protocol):
    """The bytes of a vocabulary's tokens; see `workers.text.token_bytes`."""

    def is_spoken(self, token_id: int) -> bool:
        """Whether the token has text of its own."""

    def of(self, token_id: int, *, is_first: bool = False) -> bytes:
        """The token's bytes; is_first: whether no spoken token stands before it."""


class LogprobTeller:
    """Spells what was ranked for one job, each choice's outputs in order.

    A text's first token may lose the space before it, so it is known of each choice whether its text has begun.
    """

    def __init__(self, spec: JobSpec) -> None:
        self._spec = spec
        self._begun: set[int] = set()
        self._emitted: dict[int, list[int]] = {}

    def resume(self, emitted: dict[int, list[int]]) -> None:
        """Go on behind what earlier attempts emitted, by choice."""
        self._emitted = emitted

    def tell(self, choice: int, output: SequenceOutput, spelling: Spelling) -> EventLogprobs:
        """The log probabilities of one output's event."""
        prompt = self._spec.prompts[choice // self._spec.num_choices]
        return EventLogprobs(
            tokens=self._tokens(choice, output.logprobs, spelling),
            prompt=_of_prompt(prompt, output.prompt_logprobs, spelling) if output.prompt_logprobs else (),
        )

    def _tokens(self, choice: int, ranked: Iterable[Ranked], spelling: Spelling) -> tuple[TokenLogprobs, ...]:
        if any(spelling.is_spoken(token_id) for token_id in self._emitted.pop(choice, ())):
            self._begun.add(choice)
        told = []
        for one in ranked:
            told.append(_spelled(one, spelling, is_first=choice not in self._begun))
            if spelling.is_spoken(one.token_id):
                self._begun.add(choice)
        return tuple(told)


def teller_of(spec: JobSpec) -> LogprobTeller | None:
    """A teller for a job that asks for log probabilities; None for all others."""
    is_asked = spec.sampling.logprobs is not None or spec.sampling.prompt_logprobs is not None
    return LogprobTeller(spec) if is_asked else None


def _of_prompt(prompt: Sequence[int], ranked: Sequence[Ranked], spelling: Spelling) -> tuple[TokenLogprobs, ...]:
    """Of each prompt token but the first; `ranked` is parallel to prompt[1:]."""
    first = next((place for place, token_id in enumerate(prompt) if spelling.is_spoken(token_id)), len(prompt))
    return tuple(_spelled(one, spelling, is_first=place <= first) for place, one in enumerate(ranked, start=1))


def _spelled(ranked: Ranked, spelling: Spelling, *, is_first: bool) -> TokenLogprobs:
    def candidate(token_id: int, logprob: float) -> Candidate:
        return Candidate(token_id, spelling.of(token_id, is_first=is_first), max(MIN_LOGPROB, logprob))

    return TokenLogprobs(candidate(ranked.token_id, ranked.logprob), tuple(candidate(*other) for other in ranked.top))
