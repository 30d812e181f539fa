"""The model catalogue: a cache of models and their prompt tools, at most a second old."""

import asyncio
import zlib
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

import msgspec
import structlog
from msgspec import structs
from sqlalchemy import Connection

from api.caches.database_reads import Reader
from api.caches.model_availability import ModelAvailability
from api.caches.refresher import Refresher
from api.cpu_bound_work import CpuBoundWork
from api.protocol.prompt.model_abilities import tool_format_of
from api.protocol.prompt.tokenizing import PromptTools
from storage.contract import WorkerStatus
from storage.errors import ModelLoadFailed, ModelNotFound, ModelUnavailable
from storage.fleet import manifests, workers
from storage.model_manifest import GenerationDefaults, ModelManifest, ModelStatus

log = structlog.get_logger()


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A model without its tokenizer, which is loaded when it is needed.

    tool_format: the family whose form its calls have; None for a model without calls
    dimensions:  numbers of its vectors; None for a model that makes none
    """

    model: str
    manifest_digest: str
    status: ModelStatus
    created_at: datetime
    context_length: int
    capabilities: dict[str, bool]
    tool_format: str | None = None
    dimensions: int | None = None


class _Snapshot(msgspec.Struct, frozen=True):
    """A snapshot of the rows: known models, and names that a worker is loading for the first time."""

    rows: list[manifests.ModelRow]
    loading: frozenset[str]
    failures: dict[str, workers.LoadFailure]


class Catalogue:
    """All models by name."""

    def __init__(
        self,
        reads: Reader,
        cpu_bound: CpuBoundWork,
        *,
        lease_s: float,
        refresh_s: float,
        expected: Sequence[str] = (),
        allows_special_tokens: bool = False,
        has_generation_defaults: bool = True,
    ) -> None:
        """expected: models that should be served, known to a worker already or not
        allows_special_tokens: whether strings of requests may make control tokens
        has_generation_defaults: whether a request takes sampling parameters that it does not name from the model
        """
        self._has_generation_defaults = has_generation_defaults
        self._allows_special_tokens = allows_special_tokens
        self._reads = reads
        self._cpu_bound = cpu_bound
        self._lease_s = lease_s
        self._entries: dict[str, ModelEntry] = {}
        self._loading: frozenset[str] = frozenset()
        self._availability = ModelAvailability(expected)
        self._tools: dict[str, PromptTools] = {}
        self._building: dict[str, asyncio.Task[PromptTools]] = {}
        # Digests of manifests that this process cannot read or build tools from; each is tried and logged once.
        self._unreadable: set[str] = set()
        self._unreadable_models: frozenset[str] = frozenset()
        self._refresher = Refresher("models", self._load, every_s=refresh_s, patience_s=reads.timeout_s)

    async def start(self) -> None:
        """Return when the models have been read once."""
        await self._refresher.start()

    async def stop(self) -> None:
        """Stop refreshing."""
        await self._refresher.stop()
        building = list(self._building.values())
        for one in building:
            one.cancel()
        await asyncio.gather(*building, return_exceptions=True)

    @property
    def entries(self) -> list[ModelEntry]:
        """All models, by name."""
        return list(self._entries.values())

    @property
    def is_ready(self) -> bool:
        """Whether a generation worker of any model takes jobs now."""
        return ModelStatus.READY in self.statuses.values()

    @property
    def statuses(self) -> dict[str, ModelStatus]:
        """Status of every model: the expected ones first, whether a worker has served them or not."""
        known = {model: entry.status for model, entry in self._entries.items()} | self.unserved
        return {model: known[model] for model in self._availability.expected} | known

    @property
    def not_ready(self) -> dict[str, ModelStatus]:
        """The models for which readiness waits: expected ones that are neither ready nor failed for good."""
        done = (ModelStatus.READY, ModelStatus.FAILED)
        statuses = self.statuses
        return {model: statuses[model] for model in self._availability.expected if statuses[model] not in done}

    @property
    def unserved(self) -> dict[str, ModelStatus]:
        """The models that no worker has served yet: expected ones, and those that just failed to load."""
        return self._availability.unserved(self._entries.keys())

    def failure_of(self, model: str) -> str | None:
        """Why the model is FAILED; None in any other status."""
        return self._availability.failure_of(model) if self.statuses.get(model) is ModelStatus.FAILED else None

    async def get(self, model: str) -> ModelEntry:
        """The model; ModelNotFound, or ModelUnavailable while its first worker still loads it."""
        if model not in self._entries:
            await self._refresher.renew()
        entry = self._entries.get(model)
        if entry is not None:
            return entry
        if model in self._unreadable_models:
            raise ModelUnavailable(f"This server cannot read the manifest of the model '{model}'.")
        failure = self._availability.failure_of(model)
        if failure is not None and model not in self._loading:
            raise ModelLoadFailed(f"The model '{model}' could not be loaded: {failure}")
        if model in self._loading or model in self._availability.expected:
            raise ModelUnavailable(f"The model '{model}' is still being loaded. Please try again in a while.")
        raise ModelNotFound(f"The model '{model}' does not exist or you do not have access to it.", param="model")

    async def renew(self) -> None:
        """Return when the models have been read again; StorageUnavailable when that failed or is late."""
        await self._refresher.renew()

    async def renewed(self, entry: ModelEntry) -> ModelEntry:
        """The same model as it is at this moment."""
        await self.renew()
        return self._entries.get(entry.model, entry)

    async def tools_of(self, entry: ModelEntry) -> PromptTools:
        """The model's tokenizer and template, for the smallest context of its ready workers."""
        tools = await self._built_tools_of(entry)
        return tools if tools.context_length == entry.context_length else tools.limited_to(entry.context_length)

    async def _built_tools_of(self, entry: ModelEntry) -> PromptTools:
        """The tools of the model's manifest, built once for each."""
        tools = self._tools.get(entry.manifest_digest)
        if tools is not None:
            return tools
        building = self._building.get(entry.manifest_digest)
        if building is None:
            # One builds for all, so that all learn at once when the manifest cannot be read.
            building = self._building[entry.manifest_digest] = asyncio.create_task(
                self._build(entry), name="build-tools"
            )
            building.add_done_callback(lambda done: self._forget_building(entry.manifest_digest, done))
        return await asyncio.shield(building)

    async def _build(self, entry: ModelEntry) -> PromptTools:
        manifest = await self._reads.ask(lambda connection: manifests.get_manifest(connection, entry.model))
        if not self._has_generation_defaults:
            manifest = structs.replace(manifest, generation_defaults=GenerationDefaults())
        try:
            tools = await self._cpu_bound.run(
                lambda: PromptTools(manifest, allows_special_tokens=self._allows_special_tokens)
            )
        except Exception as error:  # a tokenizer or template of any model: whatever its library raises
            self._note_unreadable(entry.model, entry.manifest_digest, error)
            raise ModelUnavailable(f"This server cannot read the tokenizer of the model '{entry.model}'.") from error
        self._tools[entry.manifest_digest] = tools
        return tools

    def _forget_building(self, manifest_digest: str, done: asyncio.Task[PromptTools]) -> None:
        del self._building[manifest_digest]
        if not done.cancelled():
            done.exception()  # retrieved, so that asyncio does not log it

    async def _load(self) -> None:
        snapshot = await self._reads.ask(lambda connection: _read_snapshot(connection, self._lease_s))
        self._availability.update(snapshot.rows, snapshot.failures)
        entries = {row.model: await self._find_entry(row) for row in snapshot.rows}
        self._entries = {model: entry for model, entry in entries.items() if entry is not None}
        self._unreadable_models = frozenset(entries.keys() - self._entries.keys())
        self._unreadable &= {row.manifest_digest for row in snapshot.rows}
        self._loading = snapshot.loading
        digests = {entry.manifest_digest for entry in self._entries.values()}
        self._tools = {digest: tools for digest, tools in self._tools.items() if digest in digests}
        for entry in self.entries:
            is_served = entry.status not in (ModelStatus.OFFLINE, ModelStatus.FAILED)
            if is_served and entry.manifest_digest not in self._unreadable:
                with suppress(ModelUnavailable):  # one model must not stop the others; it was logged
                    await self.tools_of(entry)

    async def _find_entry(self, row: manifests.ModelRow) -> ModelEntry | None:
        """The model of a row; None where its manifest cannot be read, which a newer worker may have written."""
        known = self._entries.get(row.model)
        if known is not None and known.manifest_digest == row.manifest_digest:
            length = row.context_length or known.context_length
            status = self._availability.status_of(row)
            return msgspec.structs.replace(known, status=status, context_length=length)
        if known is None and row.manifest_digest in self._unreadable:
            return None
        try:
            manifest: ModelManifest = await self._reads.ask(
                lambda connection: manifests.get_manifest(connection, row.model)
            )
        except (zlib.error, msgspec.MsgspecError) as error:
            self._note_unreadable(row.model, row.manifest_digest, error)
            return None
        return ModelEntry(
            model=row.model,
            manifest_digest=row.manifest_digest,
            status=self._availability.status_of(row),
            created_at=row.created_at,
            context_length=row.context_length or manifest.context_length,
            capabilities=manifest.capabilities,
            tool_format=None
            if manifest.embedding
            else tool_format_of(manifest.chat_template, manifest.response_template),
            dimensions=None if manifest.embedding is None else manifest.embedding.dimensions,
        )

    def _note_unreadable(self, model: str, manifest_digest: str, error: Exception) -> None:
        if manifest_digest not in self._unreadable:
            self._unreadable.add(manifest_digest)
            log.error("manifest_unreadable", model=model, manifest_digest=manifest_digest, error=str(error))


def _read_snapshot(connection: Connection, lease_s: float) -> _Snapshot:
    rows = manifests.list_models(connection, lease_s)
    alive = workers.list_alive(connection, lease_s)
    loading = {worker.model for worker in alive if worker.status is WorkerStatus.LOADING}
    return _Snapshot(rows, frozenset(loading - {row.model for row in rows}), workers.list_failures(connection))
