"""The model catalogue: a cache of the rows, a moment old at most."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
import pytest
from sqlalchemy import Connection, update
from structlog.testing import capture_logs

from api.caches.catalogue import Catalogue
from api.caches.database_reads import Reader
from api.cpu_bound_work import CpuBoundWork
from storage.contract import WorkerStatus
from storage.database.connections import Database
from storage.database.table_definitions import table_of
from storage.errors import ModelNotFound, ModelUnavailable, StorageUnavailable
from storage.fleet import manifests, workers
from storage.fleet.tables import Model
from storage.model_manifest import GenerationDefaults, ModelManifest, ModelStatus
from tests.protocol.examples import manifest
from tests.waiting import wait_until_async

T = TypeVar("T")


@pytest.fixture
def cpu_bound() -> Iterator[CpuBoundWork]:
    """The threads that build tokenizers."""
    threads = CpuBoundWork()
    yield threads
    threads.close()


@pytest.fixture
async def catalogue(database: Database, cpu_bound: CpuBoundWork) -> AsyncIterator[Catalogue]:
    """A running catalogue."""
    reads = Reader(database, timeout_s=5)
    running = Catalogue(reads, cpu_bound, lease_s=6, refresh_s=0.05)
    await running.start()
    yield running
    await running.stop()
    reads.close()


def _register(database: Database, status: WorkerStatus, manifest_: ModelManifest | None = None) -> None:
    now = datetime.now(UTC)
    new = workers.NewWorker(worker_id="w", model="demo", pid=1, host="h", device="cpu", dtype="float32", slots=1)
    with database.begin() as c:
        workers.register(c, new, now)
        workers.set_status(c, "w", status)
        if manifest_ is not None:
            manifests.put_manifest(c, manifest_, now)


async def test_a_model_that_nobody_served_is_not_found(catalogue: Catalogue) -> None:
    with pytest.raises(ModelNotFound):
        await catalogue.get("demo")


async def test_a_model_that_is_loaded_for_the_first_time_is_not_there_yet(
    catalogue: Catalogue, database: Database
) -> None:
    _register(database, WorkerStatus.LOADING)

    with pytest.raises(ModelUnavailable, match="being loaded"):
        await catalogue.get("demo")
    assert catalogue.entries == []


async def test_a_model_that_was_just_registered_is_found_at_once(catalogue: Catalogue, database: Database) -> None:
    _register(database, WorkerStatus.READY, manifest())

    entry = await catalogue.get("demo")

    assert entry.status is ModelStatus.READY
    assert catalogue.is_ready
    assert (await catalogue.tools_of(entry)).context_length == 1000
    assert await catalogue.tools_of(entry) is await catalogue.tools_of(entry)


@pytest.mark.parametrize("is_used", [True, False])
async def test_a_models_sampling_defaults_can_be_switched_off(
    is_used: bool, database: Database, cpu_bound: CpuBoundWork
) -> None:
    defaults = GenerationDefaults(temperature=0.6)
    _register(database, WorkerStatus.READY, msgspec.structs.replace(manifest(), generation_defaults=defaults))
    reads = Reader(database, timeout_s=5)
    catalogue = Catalogue(reads, cpu_bound, lease_s=6, refresh_s=0.05, has_generation_defaults=is_used)
    await catalogue.start()

    tools = await catalogue.tools_of(await catalogue.get("demo"))

    assert tools.generation_defaults == (defaults if is_used else GenerationDefaults())
    await catalogue.stop()
    reads.close()


async def test_a_new_manifest_brings_new_tools(catalogue: Catalogue, database: Database) -> None:
    _register(database, WorkerStatus.READY, manifest())
    old = await catalogue.tools_of(await catalogue.get("demo"))

    with database.begin() as c:
        manifests.put_manifest(c, msgspec.structs.replace(manifest(), context_length=77), datetime.now(UTC))

    async def is_new() -> bool:
        return (await catalogue.get("demo")).context_length == 77

    await wait_until_async(is_new)
    new = await catalogue.tools_of(await catalogue.get("demo"))
    assert (old.context_length, new.context_length) == (1000, 77)


async def test_a_model_without_a_live_worker_is_offline_and_its_tools_still_work(
    catalogue: Catalogue, database: Database
) -> None:
    _register(database, WorkerStatus.READY, manifest())
    with database.begin() as c:
        workers.mark_dead(c, "w")

    entry = await catalogue.get("demo")

    assert entry.status is ModelStatus.OFFLINE
    assert (await catalogue.tools_of(entry)).encode_prompt("Hi")


class _ReaderOfAnotherDay(Reader):
    """Answers until `is_away`; then it counts who asks and lets them wait for an error."""

    is_away = False
    num_refused = 0
    may_refuse: asyncio.Event

    async def ask(self, question: Callable[[Connection], T]) -> T:
        if not self.is_away:
            return await super().ask(question)
        self.num_refused += 1
        await self.may_refuse.wait()
        raise StorageUnavailable("the database did not answer in time")


async def test_who_waits_for_tools_together_learns_together_that_the_database_is_away(
    database: Database, cpu_bound: CpuBoundWork
) -> None:
    _register(database, WorkerStatus.READY, manifest())
    with database.begin() as c:
        workers.mark_dead(c, "w")
    reads = _ReaderOfAnotherDay(database, timeout_s=5)
    reads.may_refuse = asyncio.Event()
    catalogue = Catalogue(reads, cpu_bound, lease_s=6, refresh_s=60)
    await catalogue.start()
    entry = await catalogue.get("demo")
    reads.is_away = True

    waiting = [asyncio.create_task(catalogue.tools_of(entry)) for _ in range(5)]
    await wait_until_async(lambda: reads.num_refused == 1)
    waiting.pop().cancel()
    reads.may_refuse.set()
    refused = await asyncio.gather(*waiting, return_exceptions=True)
    reads.is_away = False
    tools = await catalogue.tools_of(entry)
    await catalogue.stop()
    reads.close()

    assert [type(error) for error in refused] == [StorageUnavailable] * 4
    assert reads.num_refused == 1
    assert tools.context_length == 1000


async def test_one_unreadable_manifest_stops_neither_the_start_nor_the_refresh(
    database: Database, cpu_bound: CpuBoundWork
) -> None:
    _register(database, WorkerStatus.READY, manifest())
    with database.begin() as c:
        manifests.put_manifest(c, msgspec.structs.replace(manifest(), model="broken"), datetime.now(UTC))
        c.execute(update(table_of(Model)).where(table_of(Model).c.id == "broken").values(manifest=b"not zlib"))
    reads = Reader(database, timeout_s=5)
    catalogue = Catalogue(reads, cpu_bound, lease_s=6, refresh_s=0.05)

    with capture_logs() as logged:
        await catalogue.start()
        assert (await catalogue.get("demo")).status is ModelStatus.READY
        for _ in range(3):
            with pytest.raises(ModelUnavailable, match="manifest"):
                await catalogue.get("broken")
    assert [entry["event"] for entry in logged if entry["log_level"] == "error"] == ["manifest_unreadable"]

    with database.begin() as c:
        manifests.put_manifest(
            c, msgspec.structs.replace(manifest(), model="broken", context_length=9), datetime.now(UTC)
        )
    await wait_until_async(lambda: _context_length(catalogue, "broken") == 9)
    await catalogue.stop()
    reads.close()


async def test_a_tokenizer_that_cannot_be_read_affects_one_model(database: Database, cpu_bound: CpuBoundWork) -> None:
    _register(database, WorkerStatus.READY, msgspec.structs.replace(manifest(), tokenizer_json="{}"))
    reads = Reader(database, timeout_s=5)
    catalogue = Catalogue(reads, cpu_bound, lease_s=6, refresh_s=0.05)

    await catalogue.start()

    entry = await catalogue.get("demo")
    with pytest.raises(ModelUnavailable, match="tokenizer"):
        await catalogue.tools_of(entry)
    await catalogue.stop()
    reads.close()


def _context_length(catalogue: Catalogue, model: str) -> int | None:
    return next((entry.context_length for entry in catalogue.entries if entry.model == model), None)
