"""Two workers of one model with different context lengths: a request must fit the smaller one."""

from datetime import UTC, datetime

from sqlalchemy import Connection

from storage.contract import WorkerStatus
from storage.database.connections import Database
from storage.fleet import manifests, workers
from storage.fleet.workers import NewWorker
from storage.model_manifest import ModelManifest
from tests.fakes import MANIFEST

LEASE_S = 6.0


def _ready(c: Connection, worker_id: str, context_length: int) -> None:
    """A worker that serves the model with a context of its own, and the last to write the manifest."""
    manifest = ModelManifest(
        model=MANIFEST.model,
        context_length=context_length,
        tokenizer_json=MANIFEST.tokenizer_json,
        chat_template=None,
        special_tokens={},
        capabilities=MANIFEST.capabilities,
    )
    manifests.put_manifest(c, manifest, datetime.now(UTC))
    new = NewWorker(worker_id=worker_id, model=MANIFEST.model, pid=1, host="h", device="cpu", dtype="f", slots=1)
    workers.register(c, new, datetime.now(UTC))
    workers.set_status(c, worker_id, WorkerStatus.READY)
    workers.beat(c, worker_id, 0, {"context_length": context_length})


def _context_length(database: Database) -> int | None:
    with database.connect() as c:
        [row] = manifests.list_models(c, LEASE_S)
    return row.context_length


def test_the_smallest_context_of_the_ready_workers_counts_whoever_wrote_last(database: Database) -> None:
    with database.begin() as c:
        _ready(c, "small", 512)
        _ready(c, "large", 4096)
    assert _context_length(database) == 512

    with database.begin() as c:
        _ready(c, "small", 512)
    assert _context_length(database) == 512


def test_a_worker_that_died_or_drains_does_not_count(database: Database) -> None:
    with database.begin() as c:
        _ready(c, "small", 512)
        _ready(c, "medium", 1024)
        _ready(c, "large", 4096)
        workers.mark_dead(c, "small")
        workers.set_status(c, "medium", WorkerStatus.DRAINING)

    assert _context_length(database) == 4096


def test_a_model_without_ready_workers_leaves_it_to_the_manifest(database: Database) -> None:
    with database.begin() as c:
        _ready(c, "small", 512)
        workers.mark_dead(c, "small")

    assert _context_length(database) is None
