"""One attempt at one job as a value."""

import pytest
from msgspec import structs

from storage.contract import (
    EntryKind,
    Failure,
    FinishReason,
    JobSpec,
    JobStatus,
    LogEntry,
    SamplingParams,
    TokenEvent,
)
from tests.workers.harness import FakeTokenBytes
from workers.engine.sampling_seed import choice_seed
from workers.engine.sequence import SequenceOutput
from workers.generation.pipeline.job_generation import Generation

SPEC = JobSpec(prompts=((1, 2), (3,)), sampling=SamplingParams(max_tokens=9, seed=5), num_choices=2)


@pytest.fixture
def generation() -> Generation:
    begun = Generation("cmpl-1")
    begun.begin(1, SPEC)
    return begun


def _event(choice: int, *token_ids: int, finish: FinishReason | None = None) -> TokenEvent:
    return TokenEvent(choice=choice, token_ids=token_ids, text="x", finish=finish)


def _entry(seq: int, *events: TokenEvent, attempt: int = 1) -> LogEntry:
    return LogEntry(attempt=attempt, seq=seq, kind=EntryKind.TOKENS, tokens=events)


def test_every_choice_is_a_sequence_with_its_prompt_and_its_own_seed(generation: Generation) -> None:
    requests = [request for _, request in generation.requests()]

    assert [request.sequence_id for request in requests] == [f"cmpl-1:1:{choice}" for choice in range(4)]
    assert [request.prompt for request in requests] == [(1, 2), (1, 2), (3,), (3,)]
    assert [request.sampling.seed for request in requests] == [choice_seed(5, choice) for choice in range(4)]
    assert [request.emitted for request in requests] == [()] * 4


def test_a_later_attempt_goes_on_after_what_the_log_has(generation: Generation) -> None:
    log = [
        LogEntry(attempt=1, seq=0, kind=EntryKind.START),
        _entry(1, _event(0, 7), _event(1, 8)),
        _entry(2, _event(0, 9, 10), _event(2, 2, finish=FinishReason.STOP)),
        LogEntry(attempt=2, seq=0, kind=EntryKind.START),
    ]

    generation.resume(log)

    assert generation.seq == 2
    assert {choice: request.emitted for choice, request in generation.requests()} == {0: (7, 9, 10), 1: (8,), 3: ()}
    assert generation.result().entries == (log[1].tokens, log[2].tokens)
    assert not generation.is_finished


def test_a_log_with_a_hole_counts_up_to_the_hole(generation: Generation) -> None:
    generation.resume([_entry(1, _event(0, 7)), _entry(3, _event(0, 9)), _entry(4, _event(0, 10))])

    assert generation.seq == 1
    assert generation.requests()[0][1].emitted == (7,)


@pytest.mark.parametrize(
    ("last", "status"), [(FinishReason.STOP, JobStatus.COMPLETED), (FinishReason.LENGTH, JobStatus.INCOMPLETE)]
)
def test_a_job_ends_with_its_last_choice(generation: Generation, last: FinishReason, status: JobStatus) -> None:
    generation.take([_event(choice, 7, finish=FinishReason.STOP) for choice in range(3)])
    assert not generation.is_finished

    generation.take([_event(3, 7, 8, finish=last)])

    assert generation.is_finished
    assert generation.status is status
    usage = generation.usage()
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 5)


def test_a_prompt_of_which_nothing_came_is_no_usage(generation: Generation) -> None:
    used = [generation.usage()]
    for choice in (1, 0, 2):
        generation.take([_event(choice, 7)])
        used.append(generation.usage())

    assert [(usage.prompt_tokens, usage.completion_tokens) for usage in used] == [(0, 0), (2, 1), (2, 2), (3, 3)]


def test_one_failed_choice_fails_the_job_with_the_first_reason(generation: Generation) -> None:
    generation.fail(Failure(code="numerical_error", message="a"))
    generation.fail(Failure(code="engine_fault", message="b"))

    assert generation.is_finished
    assert generation.status is JobStatus.FAILED
    assert generation.failure == Failure(code="numerical_error", message="a")


def test_an_output_that_says_nothing_is_no_event(generation: Generation) -> None:
    bare = SequenceOutput(sequence_id="a", token_ids=(), text="", failure=Failure(code="x", message="y"))
    last = SequenceOutput(sequence_id="a", token_ids=(), text="", finish=FinishReason.STOP)

    assert generation.event_of(0, bare, FakeTokenBytes) is None
    assert generation.event_of(0, last, FakeTokenBytes) == TokenEvent(
        choice=0, token_ids=(), text="", finish=FinishReason.STOP
    )


def test_the_engine_gets_the_priority_and_who_may_share_a_prefix() -> None:
    begun = Generation("cmpl-1")
    begun.begin(1, structs.replace(SPEC, priority=10), "demo\0alice")

    assert {(request.priority, request.cache_salt) for _, request in begun.requests()} == {(10, "demo\0alice")}


def _cached(generation: Generation, *num_cached: int) -> int:
    """The cached tokens of a job whose choices found so many."""
    for choice, number in enumerate(num_cached):
        output = SequenceOutput(sequence_id="a", token_ids=(7,), text="x", num_cached=number)
        generation.event_of(choice, output, FakeTokenBytes)
    return generation.usage().cached_tokens


def test_a_cold_prompt_saves_nothing_though_its_choices_share_it(generation: Generation) -> None:
    assert _cached(generation, 0, 1, 0, 0) == 0


def test_a_warm_prompt_is_counted_once(generation: Generation) -> None:
    assert _cached(generation, 1, 2, 0, 0) == 1


def test_choices_that_ended_before_this_attempt_save_nothing_and_spoil_nothing(generation: Generation) -> None:
    generation.resume([_entry(1, _event(0, 2, finish=FinishReason.STOP), _event(2, 2, finish=FinishReason.STOP))])

    assert _cached(generation, 0, 1, 0, 0) == 1


def test_every_choice_tells_its_prompt_once_over_all_attempts() -> None:
    asked = SamplingParams(max_tokens=9, logprobs=0, prompt_logprobs=0)
    resumed = Generation("cmpl-1")
    resumed.begin(2, structs.replace(SPEC, sampling=asked))

    resumed.resume([_entry(1, _event(1, 8))])

    # The engine tells the prompt of a sequence without emitted ids.
    assert [choice for choice, request in resumed.requests() if not request.emitted] == [0, 2, 3]
