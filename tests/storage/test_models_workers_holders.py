"""Models and their status, the workers' beats, and who holds a duty."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sqlalchemy import Connection, update

from storage.contract import WorkerStatus
from storage.database.connections import Database
from storage.database.table_definitions import table_of
from storage.errors import ModelNotFound
from storage.fleet import lock_holders, manifests, workers
from storage.fleet.tables import Worker
from storage.model_manifest import ModelStatus
from tests.storage.examples import MANIFEST, NOW, after, put_worker


@pytest.fixture
def c(database: Database) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


def _status(c: Connection) -> ModelStatus:
    (row,) = manifests.list_models(c, lease_s=6.0)
    return row.status


def _ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def test_a_manifest_is_kept_whole_and_found_by_its_model(c: Connection) -> None:
    digest = manifests.put_manifest(c, MANIFEST, NOW)
    assert manifests.get_manifest(c, "demo") == MANIFEST
    (row,) = manifests.list_models(c, lease_s=6.0)
    assert row == manifests.ModelRow(model="demo", manifest_digest=digest, status=ModelStatus.OFFLINE, created_at=NOW)


def test_a_newer_manifest_replaces_the_older(c: Connection) -> None:
    first = manifests.put_manifest(c, MANIFEST, NOW)
    assert manifests.put_manifest(c, MANIFEST, after(1)) == first
    longer = msgspec.structs.replace(MANIFEST, context_length=4096)
    second = manifests.put_manifest(c, longer, after(2))

    assert second != first
    assert manifests.get_manifest(c, "demo") == longer
    (row,) = manifests.list_models(c, lease_s=6.0)
    assert (row.manifest_digest, row.created_at) == (second, NOW)


@pytest.mark.parametrize("model", ["absent", "", "\x00"])
def test_a_model_that_nobody_served_is_not_found(c: Connection, model: str) -> None:
    with pytest.raises(ModelNotFound):
        manifests.get_manifest(c, model)


def test_a_models_status_is_that_of_its_live_workers(c: Connection) -> None:
    manifests.put_manifest(c, MANIFEST, NOW)
    put_worker(c, "other", model="other")
    workers.set_status(c, "other", WorkerStatus.READY)
    assert _status(c) is ModelStatus.OFFLINE

    put_worker(c, "w1")
    assert _status(c) is ModelStatus.LOADING
    workers.set_status(c, "w1", WorkerStatus.READY)
    assert _status(c) is ModelStatus.READY
    put_worker(c, "w1", seen_at=_ago(7))
    assert _status(c) is ModelStatus.OFFLINE
    workers.beat(c, "w1", 0)
    assert _status(c) is ModelStatus.LOADING

    workers.set_status(c, "w1", WorkerStatus.DRAINING)
    assert _status(c) is ModelStatus.OFFLINE
    put_worker(c, "w2", now=after(6))
    assert _status(c) is ModelStatus.LOADING
    workers.mark_dead(c, "w2")
    assert _status(c) is ModelStatus.OFFLINE


def test_only_the_databases_clock_says_who_is_alive(c: Connection) -> None:
    for worker_id, started_at in (("early", after(-3600)), ("late", after(3600)), ("dead", NOW)):
        put_worker(c, worker_id, now=started_at)
    put_worker(c, "gone", seen_at=_ago(6.5))
    workers.mark_dead(c, "dead")

    assert {worker.id for worker in workers.list_alive(c, 6.0)} == {"early", "late"}


def test_a_beat_moves_the_counter_and_tells_the_load(c: Connection) -> None:
    put_worker(c, "w1")
    before = workers.find(c, "w1")
    assert workers.beat(c, "w1", 3, {"num_running": 5})
    worker = workers.find(c, "w1")

    assert before is not None
    assert worker is not None
    assert worker.beat > before.beat
    assert (worker.running, worker.started_at) == (3, NOW)
    assert (worker.model, worker.slots, worker.device) == ("demo", 8, "cpu")
    assert (before.engine, worker.engine) == (None, {"num_running": 5})


def test_a_worker_that_was_given_up_learns_it_and_may_begin_anew(c: Connection) -> None:
    put_worker(c, "w1")
    workers.beat(c, "w1", 0, {"num_running": 5})
    before = workers.find(c, "w1")
    assert workers.mark_dead(c, "w1")
    assert not workers.mark_dead(c, "w1")
    assert not workers.beat(c, "w1", 0)
    assert not workers.set_status(c, "w1", WorkerStatus.READY)
    assert not workers.beat(c, "unknown", 0)

    put_worker(c, "w1", now=after(3))
    worker = workers.find(c, "w1")
    assert worker is not None
    assert before is not None
    assert (worker.status, worker.started_at, worker.engine) == (WorkerStatus.LOADING, after(3), None)
    # A watcher that saw the old beats must see this one move.
    assert worker.beat > before.beat
    assert workers.beat(c, "w1", 0)


def test_workers_are_listed_until_dead_ones_are_forgotten(c: Connection) -> None:
    for number, worker_id in enumerate(("w1", "w2", "w3")):
        put_worker(c, worker_id, model="ab"[number % 2], now=after(number), seen_at=after(number))
    workers.mark_dead(c, "w1")
    workers.mark_dead(c, "w3")

    assert [worker.id for worker in workers.list_workers(c)] == ["w1", "w2", "w3"]
    assert [worker.id for worker in workers.list_workers(c, model="a")] == ["w1", "w3"]
    assert workers.forget_dead(c, after(2)) == 1
    assert [worker.id for worker in workers.list_workers(c)] == ["w2", "w3"]


def test_a_duty_has_one_holder_who_keeps_it_while_it_beats(c: Connection) -> None:
    assert lock_holders.find(c, "sweeper") is None
    assert lock_holders.take(c, "sweeper", "w1", None)
    assert not lock_holders.take(c, "sweeper", "w2", None)
    seen = lock_holders.find(c, "sweeper")
    assert seen == lock_holders.Hold(worker_id="w1", beat=1)
    assert not lock_holders.renew(c, "sweeper", "w2")

    assert lock_holders.renew(c, "sweeper", "w1")
    assert not lock_holders.take(c, "sweeper", "w2", seen)


def test_a_silent_holder_loses_its_duty_to_one_only(c: Connection) -> None:
    lock_holders.take(c, "sweeper", "w1", None)
    seen = lock_holders.find(c, "sweeper")
    assert lock_holders.take(c, "sweeper", "w2", seen)
    assert not lock_holders.take(c, "sweeper", "w3", seen)
    assert not lock_holders.renew(c, "sweeper", "w1")
    assert lock_holders.find(c, "sweeper") == lock_holders.Hold(worker_id="w2", beat=2)


def test_a_duty_that_is_released_is_free_at_once(c: Connection) -> None:
    lock_holders.take(c, "sweeper", "w1", None)

    lock_holders.release(c, "w2")
    assert lock_holders.renew(c, "sweeper", "w1")
    lock_holders.release(c, "w1")

    assert not lock_holders.renew(c, "sweeper", "w1")
    assert lock_holders.take(c, "sweeper", "w2", None)


def _new(worker_id: str) -> workers.NewWorker:
    return workers.NewWorker(
        worker_id=worker_id, model="demo", pid=1, host="here", device="cpu", dtype="float32", slots=8
    )


def test_a_failure_is_one_line_of_bounded_length(c: Connection) -> None:
    workers.put_failure(c, _new("w1"), "line one\n  line two " + "x" * 2000, NOW)

    reason = workers.list_failures(c)["demo"].reason
    assert reason.startswith("line one line two xxx")
    assert len(reason) == workers.MAX_FAILURE_CHARACTERS
    assert reason.endswith("...")


def test_a_failure_is_recent_for_an_hour(c: Connection) -> None:
    workers.put_failure(c, _new("w1"), "no weights", NOW)
    assert workers.list_failures(c)["demo"].is_recent

    worker = table_of(Worker)
    c.execute(update(worker).values(updated_at=_ago(workers.RECENT_FAILURE_S + 60)))

    assert not workers.list_failures(c)["demo"].is_recent


def test_a_model_that_failed_on_one_worker_and_runs_on_another_is_ready(c: Connection) -> None:
    manifests.put_manifest(c, MANIFEST, NOW)
    put_worker(c, "good")
    workers.set_status(c, "good", WorkerStatus.READY)

    workers.put_failure(c, _new("bad"), "no memory", NOW)
    assert _status(c) is ModelStatus.READY

    workers.register(c, _new("bad"), NOW)
    assert workers.list_failures(c) == {}
