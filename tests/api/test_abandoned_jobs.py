"""Abandoned jobs: mass disconnects cancel jobs in few transactions."""

import redis

from api.jobs.abandoned_jobs import AbandonedJobs
from storage.broker.event_log import control_channel, decode_cancel, read_log
from storage.contract import JobStatus
from storage.database.connections import Database
from storage.database.group_commit import Operation, Writer
from storage.jobs import attaching, jobs
from tests.storage.examples import NOW, put_job


async def test_a_thousand_disconnects_take_few_transactions(
    database: Database, writer: Writer, redis_client: redis.Redis
) -> None:
    with database.begin() as c:
        queued, running, attached = [put_job(c) for _ in range(998)], put_job(c), put_job(c)
        assert jobs.claim(c, running, "w1", NOW)
        attaching.attach(c, attached)
    num_writes = 0

    def write(operation: Operation) -> object:  # type: ignore[type-arg]  # operations of all results
        nonlocal num_writes
        num_writes += 1
        return writer.submit(operation).result(30)

    abandoned = AbandonedJobs(write, redis_client)  # type: ignore[arg-type]  # not generic
    with redis_client.pubsub(ignore_subscribe_messages=True) as control:
        control.subscribe(control_channel("w1"))
        control.get_message(timeout=1)
        for job_id in (*queued, running, attached):
            abandoned.add(job_id, 0)
        await abandoned.stop()
        message = control.get_message(timeout=5)

    assert message is not None
    assert decode_cancel(message["data"]) == running
    # Two batches: a transaction for the rows of each, and one for their results.
    assert num_writes == 4
    with database.connect() as c:
        states = {state.job_id: state.status for state in jobs.list_states(c, [*queued, running, attached])}
    assert states.pop(attached) is JobStatus.QUEUED
    assert set(states.values()) == {JobStatus.CANCELLED}
    assert read_log(redis_client, queued[0])[-1].end is not None
