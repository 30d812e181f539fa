"""The tables of the fleet: models, workers, and lock holders."""

from datetime import datetime

from sqlalchemy import Column, LargeBinary
from sqlalchemy.types import JSON
from sqlmodel import Field, SQLModel

from storage.contract import WorkerStatus
from storage.database.columns import EnumText, UtcDateTime


class Model(SQLModel, table=True):
    """A language model that some worker served once.

    manifest:        ModelManifest as zlib-compressed msgpack
    manifest_digest: SHA-256 of the uncompressed manifest, in hex
    """

    __tablename__ = "model"

    id: str = Field(primary_key=True)
    manifest: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    manifest_digest: str
    created_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    updated_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))


class Worker(SQLModel, table=True):
    """A generation worker's process.

    beat:       counter that grows while it lives; watchers use their own clock
    slots:      sequences or jobs that it can run at once
    running:    jobs that it ran at its last beat
    updated_at: when it beat last, by the database's clock
    failure:    why its model can never be loaded, of a dead worker; None otherwise
    engine:     gauges and counters of its engine by name, with `num_jobs_ended`, as of its last beat; None until the
                model is loaded
    """

    __tablename__ = "worker"

    id: str = Field(primary_key=True)
    model: str = Field(index=True)
    status: WorkerStatus = Field(sa_column=Column(EnumText(WorkerStatus), nullable=False))
    pid: int
    host: str
    device: str
    dtype: str
    beat: int = 0
    slots: int = 0
    running: int = 0
    started_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    updated_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    engine: dict[str, int] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    failure: str | None = None


class Holder(SQLModel, table=True):
    """The holder of a named lock (`sweeper`); the beat shows that it is alive."""

    __tablename__ = "holder"

    name: str = Field(primary_key=True)
    worker_id: str
    beat: int
