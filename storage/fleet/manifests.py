"""All queries about models: their manifests, and whether a worker serves them now."""

import hashlib
import zlib
from collections.abc import Collection
from datetime import datetime

import msgspec
from sqlalchemy import Connection, Table, and_, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.elements import ColumnElement

from storage.contract import WorkerStatus
from storage.database.columns import DatabaseNow, SecondsAfter
from storage.database.table_definitions import table_of
from storage.errors import ModelNotFound
from storage.fleet.tables import Model, Worker
from storage.model_manifest import ModelManifest, ModelStatus

_model = table_of(Model)
_worker = table_of(Worker)
_manifest_decoder = msgspec.msgpack.Decoder(ModelManifest)


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """A model in a list; its manifest changes only with `manifest_digest`.

    context_length: the smallest of its ready workers, any of which may get a job; None where none has said
    """

    model: str
    manifest_digest: str
    status: ModelStatus
    created_at: datetime
    context_length: int | None = None


def put_manifest(c: Connection, manifest: ModelManifest, now: datetime) -> str:
    """The digest of the manifest, which is now the model's; the first one also registers the model."""
    encoded = msgspec.msgpack.encode(manifest)
    digest = hashlib.sha256(encoded).hexdigest()
    known = {"manifest": zlib.compress(encoded), "manifest_digest": digest, "updated_at": now}
    statement = upsert(c, _model).values(id=manifest.model, created_at=now, **known)
    c.execute(statement.on_conflict_do_update(index_elements=["id"], set_=known))
    return digest


def get_manifest(c: Connection, model: str) -> ModelManifest:
    """The model's manifest; ModelNotFound when no worker ever served it."""
    packed = None if "\0" in model else c.execute(select(_model.c.manifest).where(_model.c.id == model)).scalar()
    if packed is None:
        raise ModelNotFound(f"The model '{model}' does not exist.")
    return _manifest_decoder.decode(zlib.decompress(packed))


def is_alive(lease_s: float) -> ColumnElement[bool]:
    """SQL for a worker that is not dead and beat within the lease, by the clock that wrote the beat: the database's."""
    lease_end = SecondsAfter(_worker.c.updated_at, literal(lease_s))
    return and_(_worker.c.status != WorkerStatus.DEAD, lease_end > DatabaseNow())


def list_models(c: Connection, lease_s: float) -> list[ModelRow]:
    """Every known model by name, with its status from the workers that beat within the lease."""
    alive = select(_worker.c.model, _worker.c.status, _worker.c.engine).where(is_alive(lease_s))
    statuses: dict[str, set[WorkerStatus]] = {}
    lengths: dict[str, int] = {}
    for model, status, engine in c.execute(alive):
        statuses.setdefault(model, set()).add(status)
        length = (engine or {}).get("context_length")
        if length is not None and status is WorkerStatus.READY:
            lengths[model] = min(length, lengths.get(model, length))
    rows = c.execute(select(_model.c.id, _model.c.manifest_digest, _model.c.created_at).order_by(_model.c.id))
    return [
        ModelRow(
            model=id_,
            manifest_digest=digest,
            created_at=created_at,
            status=status_of(statuses.get(id_, ())),
            context_length=lengths.get(id_),
        )
        for id_, digest, created_at in rows
    ]


def status_of(workers: Collection[WorkerStatus]) -> ModelStatus:
    """The status of a model whose live workers have these states; a draining one takes no new jobs."""
    if WorkerStatus.READY in workers:
        return ModelStatus.READY
    return ModelStatus.LOADING if WorkerStatus.LOADING in workers else ModelStatus.OFFLINE


def upsert(c: Connection, table: Table) -> "sqlite.Insert | postgresql.Insert":
    """An INSERT that knows ON CONFLICT, in the connection's dialect."""
    return sqlite.insert(table) if c.dialect.name == "sqlite" else postgresql.insert(table)
