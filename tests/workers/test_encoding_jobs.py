"""Embedding jobs on a worker: queue, claim, encoder, result in the row, END in the log; as other jobs."""

import struct
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest
from msgspec import structs

from storage.contract import EntryKind, JobStatus
from storage.embedding_job import EmbeddingResult, EmbeddingSpec
from storage.jobs import jobs, records
from tests.fakes import BREAKS_STEP, MANIFEST, NOT_FINITE, FakeEncoder, spec
from tests.workers.harness import Backend, Bench, running, wait_for_answer
from workers.engine.encoder_engine import EncoderEngine, EncoderLimits
from workers.generation.engine_thread import Loaded
from workers.generation.pipeline import job_encoding
from workers.generation.pipeline.job_encoding import Encoding

LIMITS = EncoderLimits(max_len=64, vocab_size=1000, max_batch_tokens=100)
INPUTS = ((50, 51), (52,), (53, 54, 55))


def encoder(runner: FakeEncoder) -> Loaded:
    return Loaded(
        engine=EncoderEngine(runner, LIMITS),
        manifest=MANIFEST,
        text=None,
        device="cpu",
        dtype="float32",
        new_job=Encoding,
    )


def numbers_of(backend: Backend, job_id: str) -> list[float]:
    result = records.result_of(backend.row(job_id))
    assert isinstance(result, EmbeddingResult)
    return list(struct.unpack(f"<{len(result.numbers) // 4}f", result.numbers))


@pytest.fixture
def runner() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def worker(backend: Backend, runner: FakeEncoder) -> Iterator[Bench]:
    with running(backend, model=encoder(runner)) as bench:
        yield bench


def test_a_job_gets_its_vectors_in_the_order_of_its_inputs(backend: Backend, worker: Bench) -> None:
    job_id = backend.put_job(EmbeddingSpec(inputs=INPUTS))

    assert wait_for_answer(worker.submit(job_id)) == "acknowledged"

    row = backend.row(job_id)
    assert (row.status, row.prompt_tokens, row.completion_tokens) == (JobStatus.COMPLETED, 6, 0)
    assert numbers_of(backend, job_id) == [2.0, 101.0, 1.0, 1.0, 52.0, 1.0, 3.0, 162.0, 1.0]
    # Vectors never go through Redis.
    assert [entry.kind for entry in backend.log(job_id)] == [EntryKind.START, EntryKind.END]


def test_small_jobs_share_a_forward_pass(backend: Backend) -> None:
    runner = FakeEncoder(step_s=0.05)
    with running(backend, model=encoder(runner)) as worker:
        job_ids = [backend.put_job(EmbeddingSpec(inputs=((50 + number,),))) for number in range(30)]
        tickets = [worker.submit(job_id) for job_id in job_ids]

        assert {wait_for_answer(ticket) for ticket in tickets} == {"acknowledged"}

    assert [numbers_of(backend, job_id)[1] for job_id in job_ids] == [50.0 + number for number in range(30)]
    assert len(runner.batches) < 15


def test_pairs_are_answered_by_their_cosines(backend: Backend, worker: Bench) -> None:
    job_id = backend.put_job(EmbeddingSpec(inputs=((50,), (50,), (900, 1)), pairs=((0, 1), (0, 2))))

    wait_for_answer(worker.submit(job_id))

    same, other = numbers_of(backend, job_id)
    assert same == pytest.approx(1.0)
    assert other == pytest.approx((2 + 50 * 901 + 1) / ((2502**0.5) * (4 + 901**2 + 1) ** 0.5))


def test_cosines_are_computed_before_the_commit(
    backend: Backend, worker: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    compute = job_encoding._cosines

    def noted(vectors: Sequence[bytes], pairs: Sequence[tuple[int, int]]) -> list[bytes]:
        threads.append(threading.current_thread().name)
        return compute(vectors, pairs)

    monkeypatch.setattr(job_encoding, "_cosines", noted)
    wait_for_answer(worker.submit(backend.put_job(EmbeddingSpec(inputs=((50,), (51,)), pairs=((0, 1),)))))

    assert len(threads) == 1
    assert threads != ["writer"]


@pytest.mark.parametrize(
    ("mark", "code"), [(BREAKS_STEP, "engine_fault"), (NOT_FINITE, "numerical_error")], ids=["breaks", "not-finite"]
)
def test_a_bad_input_fails_its_job_and_no_other(backend: Backend, worker: Bench, mark: int, code: str) -> None:
    bad = backend.put_job(EmbeddingSpec(inputs=((50,), (mark,))))
    good = backend.put_job(EmbeddingSpec(inputs=((50,),)))

    for ticket in [worker.submit(bad), worker.submit(good)]:
        wait_for_answer(ticket)

    failure = backend.row(bad).failure
    assert failure is not None
    assert failure["code"] == code
    assert backend.row(good).status is JobStatus.COMPLETED


def test_an_encoder_runs_no_generation_and_a_generator_no_embedding(backend: Backend, worker: Bench) -> None:
    generation = backend.put_job(spec(3))
    wait_for_answer(worker.submit(generation))
    worker.stop()

    with running(backend) as generator:
        embedding = backend.put_job(EmbeddingSpec(inputs=INPUTS))
        wait_for_answer(generator.submit(embedding))

    for job_id in (generation, embedding):
        failure = backend.row(job_id).failure
        assert failure is not None
        assert failure["code"] == "model_capability_missing"
        assert backend.is_closed(job_id)


def test_a_cancelled_job_leaves_the_encoder(backend: Backend) -> None:
    runner = FakeEncoder(step_s=0.02)
    with running(backend, model=encoder(runner)) as worker:
        job_id = backend.put_job(EmbeddingSpec(inputs=((50,) * 64,) * 500))
        ticket = worker.submit(job_id)
        backend.wait_for_status(job_id, JobStatus.IN_PROGRESS)
        backend.cancel(job_id, worker.worker_id)

        assert wait_for_answer(ticket) == "acknowledged"

    assert backend.row(job_id).status is JobStatus.CANCELLED
    assert records.result_of(backend.row(job_id)) == EmbeddingResult()
    assert len(runner.batches) < 500


def test_a_job_of_a_dead_worker_is_encoded_again(backend: Backend, worker: Bench) -> None:
    job_id = backend.put_job(EmbeddingSpec(inputs=INPUTS))
    backend.lose(job_id, times=1)

    wait_for_answer(worker.submit(job_id))

    row = backend.row(job_id)
    assert (row.status, row.attempt, row.lost_attempts) == (JobStatus.COMPLETED, 2, 1)
    assert len(numbers_of(backend, job_id)) == 9
    assert [entry.kind for entry in backend.log(job_id)].count(EntryKind.END) == 1


def test_a_draining_worker_gives_its_job_back(backend: Backend) -> None:
    with running(backend, model=encoder(FakeEncoder(step_s=0.02))) as worker:
        job_id = backend.put_job(EmbeddingSpec(inputs=((50,) * 64,) * 500))
        ticket = worker.submit(job_id)
        backend.wait_for_status(job_id, JobStatus.IN_PROGRESS)

    assert ticket.answers == ["given back"]
    assert backend.row(job_id).status is JobStatus.QUEUED


def test_a_large_job_is_read_outside_of_its_claim(backend: Backend, worker: Bench) -> None:
    job_id = backend.put_job(EmbeddingSpec(inputs=((700,) * 60,) * 800))

    wait_for_answer(worker.submit(job_id))

    assert len(numbers_of(backend, job_id)) == 2400


def test_a_worker_claims_no_embedding_of_a_later_format(backend: Backend) -> None:
    job_id = backend.put_job(EmbeddingSpec(inputs=INPUTS))
    with backend.database.begin() as connection:
        connection.exec_driver_sql("UPDATE job_input SET spec_version = 9")
    with backend.database.begin() as connection:
        assert jobs.claim(connection, job_id, "somebody", datetime.now(UTC)) is None


def test_a_spec_and_a_result_are_read_as_they_were_written(backend: Backend, worker: Bench) -> None:
    asked = EmbeddingSpec(
        inputs=INPUTS, second_starts=(1, 1, 2), dimensions=2, is_normalized=False, priority=-10, pairs=((0, 1),)
    )

    assert backend.spec(backend.put_job(asked)) == asked
    assert structs.replace(asked, priority=10).priority_queue == "back"
