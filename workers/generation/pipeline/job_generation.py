"""One attempt at one job as a value: what was emitted, what is still open, how it ends. No thread, no I/O."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial

from llguidance import LLMatcher
from msgspec import structs

from storage.contract import (
    EntryKind,
    Failure,
    FinishReason,
    JobSpec,
    JobStatus,
    LogEntry,
    Result,
    SamplingParams,
    TokenEvent,
    Usage,
)
from storage.embedding_job import AnySpec
from workers.engine.sampling_seed import choice_seed
from workers.engine.sequence import SequenceOutput, SequenceRequest
from workers.generation.pipeline.logprob_bytes import LogprobFormatter, TokenBytes, formatter_of
from workers.publishing.log_entries import usage_of

# From this attempt on the number of entries that make an attempt harmless stays the same: 512.
_LATE_ATTEMPT = 8
NOTHING = JobSpec(prompts=(), sampling=SamplingParams(max_tokens=0))
_NO_GENERATOR = Failure(code="model_capability_missing", message="The model generates text and makes no embeddings.")


class Phase(StrEnum):
    """Where a generation stands: waiting for its claim, in the engine, on its way to an outcome, its row ended."""

    CLAIMING = "claiming"
    RUNNING = "running"
    CLOSING = "closing"
    ENDED = "ended"


class StopReason(StrEnum):
    """Why a generation leaves the engine before its end."""

    CANCELLED = "cancelled"  # its row says so
    OWNERSHIP_LOST = "ownership_lost"  # the row or the log belongs to another attempt
    GIVEN_BACK = "given_back"  # this worker drains
    UNCLAIMED = "unclaimed"  # it began while its claim was being committed, and the claim failed


class Generation:
    """A job on this worker, from its ticket to its outcome.

    One thread owns it at a time and hands it on through a queue: event loop, writer, engine, publisher, writer,
    publisher, event loop. Only `stop` is written from outside; it is read where the
    engine takes sequences in and where their outputs are published.

    first_token_at: when this attempt emitted its first entry
    is_turn:    whether its end adds items to a conversation
    is_claimed: whether its claim is committed; entries are published from then on
    formatter:  formats log probabilities; None for a job that asks for none
    """

    __slots__ = (
        "_cache_salt",
        "_cached_by_choice",
        "_clock",
        "_ended_before",
        "_finish_by_choice",
        "attempt",
        "entries",
        "failure",
        "first_token_at",
        "formatter",
        "is_claimed",
        "is_turn",
        "job_id",
        "num_resumed",
        "phase",
        "spec",
        "stop",
    )

    def __init__(self, job_id: str, clock: Callable[[], datetime] = partial(datetime.now, UTC)) -> None:
        self._clock = clock
        self.first_token_at: datetime | None = None
        self.job_id = job_id
        self.phase = Phase.CLAIMING
        self.stop: StopReason | None = None
        self.is_claimed = False
        self.is_turn = False
        self.attempt = 0
        self.spec: JobSpec
        self.entries: list[tuple[TokenEvent, ...]] = []
        self.num_resumed = 0
        self.failure: Failure | None = None
        self.formatter: LogprobFormatter | None = None
        self._cache_salt = ""
        self._finish_by_choice: dict[int, FinishReason] = {}
        self._cached_by_choice: dict[int, int] = {}
        self._ended_before: frozenset[int] = frozenset()

    def begin(self, attempt: int, spec: AnySpec, cache_salt: str = "") -> None:
        """Take over the claimed attempt; a job of another kind than this one fails at once.

        cache_salt: sequences share cached prefixes only with those of the same salt
        """
        self.attempt = attempt
        self.spec = spec if isinstance(spec, JobSpec) else NOTHING
        if self.spec is not spec:
            self.fail(_NO_GENERATOR)
        self.formatter = formatter_of(self.spec)
        self._cache_salt = cache_salt

    def resume(self, log: Iterable[LogEntry]) -> None:
        """Go on after what earlier attempts put into the log.

        A log that was lost in part (a flushed Redis) counts up to its first gap: entries are numbered 1, 2, 3, ...
        """
        for entry in log:
            if entry.kind is EntryKind.TOKENS and entry.seq == self.seq + 1:
                self.take(entry.tokens)
        self.num_resumed = self.seq
        self.first_token_at = None
        self._ended_before = frozenset(self._finish_by_choice)
        if self.formatter is not None:
            self.formatter.resume(_emitted_by_choice(self.entries))

    @property
    def num_unvalidated(self) -> int:
        """Entries until this attempt counts as harmless: more for later attempts, up to a bound.

        The bound is there because drains make later attempts as well, and isolated jobs wait for every other job.
        """
        return (1 << (min(self.attempt, _LATE_ATTEMPT) + 1)) - (self.seq - self.num_resumed)

    @property
    def is_validated(self) -> bool:
        """Whether this attempt has run well for a while, or has ended."""
        return self.phase in (Phase.CLOSING, Phase.ENDED) or (self.phase is Phase.RUNNING and self.num_unvalidated <= 0)

    @property
    def seq(self) -> int:
        """Number of the last TOKENS entry, 0 before the first."""
        return len(self.entries)

    def sequence_id(self, choice: int) -> str:
        """The engine's name for one choice of this attempt."""
        return f"{self.job_id}:{self.attempt}:{choice}"

    def sequence_ids(self) -> list[str]:
        """The engine's names for every choice of this attempt."""
        return [self.sequence_id(choice) for choice in range(self.spec.total_choices)]

    @property
    def grammar(self) -> str | None:
        """What its choices may write; None for free text."""
        return None if self.spec.output is None else self.spec.output.grammar

    def engine_requests(self, new_matcher: Callable[[], LLMatcher | None]) -> Sequence[tuple[int, object]]:
        """What the engine of this kind of job is to run, by choice; as `requests`."""
        return self.requests(new_matcher)

    def requests(self, new_matcher: Callable[[], LLMatcher | None] = lambda: None) -> list[tuple[int, SequenceRequest]]:
        """What the engine is to run: (choice, request) for every choice that has not ended in the log.

        new_matcher: makes the matcher of one choice
        """
        emitted = _emitted_by_choice(self.entries)
        return [
            (choice, self._request(choice, tuple(emitted.get(choice, ())), new_matcher()))
            for choice in range(self.spec.total_choices)
            if choice not in self._finish_by_choice
        ]

    def _request(self, choice: int, emitted: tuple[int, ...], matcher: LLMatcher | None) -> SequenceRequest:
        return SequenceRequest(
            sequence_id=self.sequence_id(choice),
            prompt=self.spec.prompts[choice // self.spec.num_choices],
            sampling=seeded(self.spec, choice),
            emitted=emitted,
            priority=self.spec.priority,
            cache_salt=self._cache_salt,
            output=self.spec.output,
            matcher=matcher,
        )

    def event_of(self, choice: int, output: SequenceOutput, token_bytes: Callable[[], TokenBytes]) -> TokenEvent | None:
        """The token event of an engine output; None when there is none (a bare failure)."""
        if output.num_cached:
            self._cached_by_choice[choice] = output.num_cached
        if not output.token_ids and not output.text and output.finish is None:
            return None
        if self.formatter is None:
            return TokenEvent(choice=choice, token_ids=output.token_ids, text=output.text, finish=output.finish)
        return TokenEvent(
            choice=choice,
            token_ids=output.token_ids,
            text=output.text,
            finish=output.finish,
            logprobs=self.formatter.format(choice, output, token_bytes()),
        )

    def take(self, events: Sequence[TokenEvent]) -> None:
        """Add one entry: what one engine step emitted for this job."""
        if self.first_token_at is None:
            self.first_token_at = self._clock()
        self.entries.append(tuple(events))
        for event in events:
            if event.finish is not None:
                self._finish_by_choice[event.choice] = event.finish

    def fail(self, failure: Failure) -> None:
        """Note why the job cannot go on; the first reason stays."""
        self.failure = self.failure or failure

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to generate."""
        return self.failure is not None or len(self._finish_by_choice) == self.spec.total_choices

    @property
    def status(self) -> JobStatus:
        """The finished job's status, unless it was cancelled."""
        if self.failure is not None:
            return JobStatus.FAILED
        if FinishReason.LENGTH in self._finish_by_choice.values():
            return JobStatus.INCOMPLETE
        return JobStatus.COMPLETED

    def result(self) -> Result:
        """Every entry of every attempt, in order."""
        return Result(entries=tuple(self.entries))

    def usage(self) -> Usage:
        """Tokens read and written so far."""
        return usage_of(self.spec, self.entries, self._num_cached())

    def _num_cached(self) -> int:
        """Prompt tokens that no choice had to compute, because they were in the cache when the job came.

        What one choice of a prompt finds because another computed it is no saving on the prompt, which counts once;
        so a prompt saves what its least lucky choice found. Choices that ended in earlier attempts do not speak.
        """
        if not self._cached_by_choice:
            return 0
        num_choices = self.spec.num_choices
        return sum(
            min(self._cached_by_choice.get(choice, 0) for choice in choices)
            for first in range(0, self.spec.total_choices, num_choices)
            if (choices := [choice for choice in range(first, first + num_choices) if choice not in self._ended_before])
        )


def seeded(spec: JobSpec, choice: int) -> SamplingParams:
    """The sampling of one choice: the job's, under that choice's own seed."""
    return structs.replace(spec.sampling, seed=choice_seed(spec.sampling.seed, choice))


def _emitted_by_choice(entries: Iterable[tuple[TokenEvent, ...]]) -> dict[int, list[int]]:
    emitted: dict[int, list[int]] = {}
    for entry in entries:
        for event in entry:
            emitted.setdefault(event.choice, []).extend(event.token_ids)
    return emitted
