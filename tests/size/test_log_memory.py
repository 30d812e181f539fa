"""The memory that event logs take in Redis in the steady state: measured bytes a token, times the rate and how long."""

import pytest
import redis

from api.cli.settings import CliSettings
from storage.broker.event_log import LogWriter, encode_end, encode_tokens, log_key
from storage.contract import End, EntryKind, JobKind, JobStatus, TokenEvent, Usage
from storage.ids import new_job_id
from storage.settings import StorageSettings
from tests.size.figures import Figure, Figures

NUM_JOBS, NUM_TOKENS = 100, 200
RATES = (5_000, 10_000)
# What may be held, of the limit that `tokenpost up` gives Redis.
MOST_PART = {5_000: 0.5, 10_000: 1.0}
# A job of a busy fleet streams for so long before its log is an ended one.
RUNNING_S = 30


def _write_logs(client: redis.Redis) -> list[str]:
    settings = StorageSettings(database_url="sqlite:////nowhere.db", redis_url="unix:///nowhere.sock")
    writer = LogWriter(client, "worker", ttl_running_s=settings.log_ttl_running_s, ttl_ended_s=settings.log_ttl_ended_s)
    job_ids = [new_job_id(JobKind.RESPONSE) for _ in range(NUM_JOBS)]
    writer.append([(job_id, 1, 0, EntryKind.START, b"") for job_id in job_ids])
    for seq in range(1, NUM_TOKENS + 1):
        event = TokenEvent(choice=0, token_ids=(seq * 37 % 50_000,), text=" word")
        writer.append([(job_id, 1, seq, EntryKind.TOKENS, encode_tokens([event])) for job_id in job_ids])
    usage = Usage(prompt_tokens=40, completion_tokens=NUM_TOKENS, cached_tokens=0)
    end = encode_end(End(status=JobStatus.COMPLETED, usage=usage, ended_at=1_790_000_000))
    writer.append([(job_id, 1, NUM_TOKENS + 1, EntryKind.END, end) for job_id in job_ids])
    return job_ids


@pytest.mark.parametrize("rate", RATES)
def test_ended_logs_leave_room_for_running_ones(redis_client: redis.Redis, figures: Figures, rate: int) -> None:
    log_keys = [log_key(job_id) for job_id in _write_logs(redis_client)]
    bytes_a_token = sum(redis_client.memory_usage(key, samples=0) for key in log_keys) / (NUM_JOBS * NUM_TOKENS)
    kept_s = max(redis_client.ttl(key) for key in log_keys)

    assert kept_s > 0
    limit = CliSettings.model_fields["redis_max_memory_mb"].default * 2**20
    held = rate * (RUNNING_S + kept_s) * bytes_a_token
    figures.check(
        Figure(
            what=f"Redis memory of logs at {rate:,} tokens a second",
            seen=held / limit,
            most=MOST_PART[rate],
            unit="of its limit",
            note=f"{bytes_a_token:.0f} bytes a token, kept for {kept_s} s, {held / 2**20:.0f} MiB",
        )
    )
