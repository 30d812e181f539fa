"""Ended logs leave Redis soon, and sooner when it is short of memory."""

from collections import deque
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis

from storage.broker.event_log import LogWriter, log_key
from storage.contract import End, FinishReason, JobStatus, Result, TokenEvent, Usage
from storage.database.group_commit import Writer
from storage.jobs import jobs
from storage.settings import StorageSettings
from tests.fakes import spec
from tests.workers.harness import Backend
from workers.maintenance.log_eviction import PRESSURE_SHARE, LogEviction, is_under_pressure
from workers.maintenance.log_repair import LogRepair
from workers.publishing.log_entries import end_row, start_row, tokens_row

MIB = 1 << 20
LIMIT_BYTES = 1024 * MIB
TOKENS_PER_S = 5_000
TOKENS_PER_ANSWER = 250
ENTRIES = (
    (TokenEvent(choice=0, token_ids=(20,), text=" a"),),
    (TokenEvent(choice=0, token_ids=(0,), text="", finish=FinishReason.STOP),),
)
USAGE = Usage(prompt_tokens=4, completion_tokens=2)
ENDED = End(status=JobStatus.COMPLETED, usage=USAGE, ended_at=1)


def _end(backend: Backend, *, is_complete: bool) -> str:
    """A job that ended a minute ago, with its log; without the END unless it is complete."""
    job_id = backend.put_job(spec(1))
    backend.claim(job_id)
    moment = datetime.now(UTC) - timedelta(minutes=1)
    with backend.database.begin() as connection:
        assert jobs.complete(
            connection, job_id, 1, status=JobStatus.COMPLETED, result=Result(entries=ENTRIES), usage=USAGE, now=moment
        )
    rows = [start_row(job_id, 1), *(tokens_row(job_id, 1, seq, one) for seq, one in enumerate(ENTRIES, 1))]
    LogWriter(backend.redis, "w").append([*rows, end_row(job_id, 1, 2, ENDED)] if is_complete else rows)
    return job_id


@pytest.mark.parametrize(("used_bytes", "is_left"), [(LIMIT_BYTES // 4, True), (LIMIT_BYTES // 2, False)])
def test_complete_logs_go_early_under_memory_pressure_and_incomplete_ones_stay(
    backend: Backend, writer: Writer, used_bytes: int, is_left: bool
) -> None:
    complete, incomplete = _end(backend, is_complete=True), _end(backend, is_complete=False)
    repair = LogRepair(backend.settings, backend.database, writer, backend.redis, settling_s=5.0)
    repair.checked_until = datetime.now(UTC)
    eviction = LogEviction(
        backend.database,
        backend.redis,
        repair,
        retentions_s={600},
        ttl_s=90.0,
        memory=lambda: (used_bytes, LIMIT_BYTES),
    )

    assert not eviction.evict()

    assert bool(backend.redis.exists(log_key(complete))) == is_left
    assert backend.redis.exists(log_key(incomplete))


def test_a_redis_without_a_limit_is_never_short_of_memory() -> None:
    assert not is_under_pressure(1 << 50, 0)
    assert is_under_pressure(LIMIT_BYTES, LIMIT_BYTES)


def _bytes_per_token(redis: Redis) -> float:
    """What a stored answer of `TOKENS_PER_ANSWER` tokens costs in Redis, one entry for each."""
    events = [(TokenEvent(choice=0, token_ids=(1000 + seq,), text=" token"),) for seq in range(TOKENS_PER_ANSWER)]
    rows = [start_row("stored", 1), *(tokens_row("stored", 1, seq, one) for seq, one in enumerate(events, 1))]
    LogWriter(redis, "w").append([*rows, end_row("stored", 1, len(events), ENDED)])
    return float(redis.memory_usage(log_key("stored"), samples=0)) / TOKENS_PER_ANSWER


def test_a_day_of_stored_answers_at_5000_tokens_a_second_stays_under_half_of_redis(redis_client: Redis) -> None:
    settings = StorageSettings(database_url="sqlite:////x.db", redis_url="redis://x")
    answer_bytes = _bytes_per_token(redis_client) * TOKENS_PER_ANSWER
    ends_per_s = TOKENS_PER_S // TOKENS_PER_ANSWER

    kept: deque[tuple[int, float]] = deque()
    used = peak = 0.0
    for now in range(24 * 3600):
        while kept and kept[0][0] <= now:
            used -= kept.popleft()[1]
        kept.append((now + settings.log_ttl_ended_s, ends_per_s * answer_bytes))
        used += ends_per_s * answer_bytes
        peak = max(peak, used)

    assert answer_bytes > 30 * TOKENS_PER_ANSWER
    assert peak < LIMIT_BYTES / 2
    # Nor is it so much that the eviction would have to help.
    assert peak < PRESSURE_SHARE * LIMIT_BYTES
    assert redis_client.ttl(log_key("stored")) <= settings.log_ttl_ended_s
