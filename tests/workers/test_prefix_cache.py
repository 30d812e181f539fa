"""Which jobs share what the cache holds of their prompts, and what their usage says of it."""

import pytest

from storage.contract import JobSpec, SamplingParams
from tests.fakes import LIMITS
from tests.workers.harness import Backend, Bench, running, wait_for_answer

# Four words follow; the prompt fills three blocks and a part of a fourth.
PROMPT = (5, 100, 3, 7, *range(100, 196))
SPEC = JobSpec(prompts=(PROMPT,), sampling=SamplingParams(max_tokens=50, seed=11))
NUM_SHARED = 3 * LIMITS.block_size


def cached_tokens(bench: Bench, spec: JobSpec = SPEC, owner: str = "alice") -> int | None:
    """What the usage of a job says once it has run."""
    job_id = bench.backend.put_job(spec, owner=owner)
    wait_for_answer(bench.submit(job_id))
    row = bench.backend.row(job_id)
    assert row.prompt_tokens == sum(map(len, spec.prompts))
    return row.cached_tokens


def test_a_prompt_that_was_read_before_is_not_read_again(bench: Bench) -> None:
    assert [cached_tokens(bench) for _ in range(3)] == [0, NUM_SHARED, NUM_SHARED]


def test_nobody_hits_what_another_owner_left(bench: Bench) -> None:
    assert [cached_tokens(bench, owner=owner) for owner in ("alice", "bob", "bob", "alice")] == [
        0,
        0,
        NUM_SHARED,
        NUM_SHARED,
    ]


@pytest.mark.parametrize("num_choices", [2, 4])
def test_choices_that_share_their_own_prompt_save_nothing(bench: Bench, num_choices: int) -> None:
    several = JobSpec(prompts=SPEC.prompts, sampling=SPEC.sampling, num_choices=num_choices)

    assert [cached_tokens(bench, several) for _ in range(2)] == [0, NUM_SHARED]


def test_an_equal_prompt_of_the_same_job_is_a_prompt_of_its_own(bench: Bench) -> None:
    twice = JobSpec(prompts=(PROMPT, PROMPT), sampling=SPEC.sampling)

    assert cached_tokens(bench, twice) == NUM_SHARED


def test_a_worker_can_be_configured_to_share_nothing_between_jobs(backend: Backend) -> None:
    with running(backend, prefix_cache=False) as bench:
        assert [cached_tokens(bench) for _ in range(2)] == [0, 0]
