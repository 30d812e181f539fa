"""Rows and values that the tests of this room begin with."""

import itertools
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, insert, update

from storage.contract import FinishReason, JobKind, JobSpec, Result, SamplingParams, TokenEvent, Usage
from storage.database.table_definitions import table_of
from storage.fleet import workers
from storage.fleet.tables import Worker
from storage.ids import new_id, new_job_id
from storage.jobs import jobs
from storage.jobs.records import NewJob
from storage.model_manifest import ModelManifest
from storage.network.url_policy import host_of
from storage.webhooks.endpoints import create_endpoint
from storage.webhooks.tables import DeliveryStatus, WebhookDelivery, WebhookEndpoint

NOW = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
SPEC = JobSpec(prompts=((1, 2, 3), (4,)), sampling=SamplingParams(max_tokens=8, seed=7, stop=("\n",)), num_choices=2)
USAGE = Usage(prompt_tokens=4, completion_tokens=3, cached_tokens=1, reasoning_tokens=2)
RESULT = Result(
    entries=(
        (TokenEvent(choice=0, token_ids=(5,), text="Grüße "), TokenEvent(choice=1, token_ids=(6, 7), text="")),
        (TokenEvent(choice=0, token_ids=(2,), text="\x00\n", finish=FinishReason.STOP),),
    )
)
MANIFEST = ModelManifest(
    model="demo",
    context_length=2048,
    tokenizer_json='{"a": 1}',
    chat_template="{{ x }}",
    special_tokens={"eos_token": "</s>"},
    capabilities={"chat": True},
)


def after(seconds: float) -> datetime:
    """A moment after NOW."""
    return NOW + timedelta(seconds=seconds)


def new_job(**changes: object) -> NewJob:
    """A chat job of alice; `changes` replaces fields."""
    kind = changes.get("kind", JobKind.CHAT)
    assert isinstance(kind, JobKind)
    values: dict[str, object] = {
        "job_id": new_job_id(kind),
        "owner": "alice",
        "kind": kind,
        "model": "demo",
        "background": False,
        "store": True,
        "request": {"messages": [{"role": "user", "content": "a \x00 b"}], "temperature": 0.5},
        "context": {},
        "metadata": {"project": "x"},
        "spec": SPEC,
        "created_at": NOW,
    }
    return NewJob(**(values | changes))  # type: ignore[arg-type]  # fields of a struct by name


def put_job(c: Connection, *, retention_s: int = 600, **changes: object) -> str:
    """The id of a new queued job."""
    new = new_job(**changes)
    (job, values), *others = jobs.rows_of(new, retention_s)
    for table, row in ((job, {**values, "sent_at": new.created_at}), *others):
        c.execute(insert(table_of(table)).values(**row))
    return new.job_id


def put_worker(
    c: Connection, worker_id: str, *, model: str = "demo", now: datetime = NOW, seen_at: datetime | None = None
) -> None:
    """A registered worker; seen_at: its last beat, where that is not to be this moment."""
    new = workers.NewWorker(
        worker_id=worker_id, model=model, pid=1, host="here", device="cpu", dtype="float32", slots=8
    )
    workers.register(c, new, now)
    if seen_at is not None:
        worker = table_of(Worker)
        c.execute(update(worker).where(worker.c.id == worker_id).values(updated_at=seen_at))


# Ids in the order of their making, also within a millisecond.
_numbers = itertools.count()


def put_endpoint(c: Connection, *, endpoint_id: str | None = None, **changes: object) -> WebhookEndpoint:
    """A webhook endpoint of alice for every event."""
    values: dict[str, object] = {"owner": "alice", "name": "mine", "url": "https://example.com/hook", "event_types": []}
    values |= {"secret": "whsec_" + "A" * 32, "now": NOW} | changes
    return create_endpoint(c, endpoint_id=endpoint_id or f"we_{next(_numbers):032x}", **values)  # type: ignore[arg-type]  # by name


def put_delivery(c: Connection, endpoint: WebhookEndpoint, **changes: object) -> WebhookDelivery:
    """A delivery for the endpoint, due since NOW."""
    values: dict[str, object] = {
        "id": f"dlv_{next(_numbers):032x}",
        "event_id": new_id("evt_"),
        "owner": endpoint.owner,
        "endpoint_id": endpoint.id,
        "job_id": new_job_id(JobKind.RESPONSE),
        "type": "response.completed",
        "url": endpoint.url,
        "host": host_of(endpoint.url),
        "status": DeliveryStatus.PENDING,
        "next_attempt_at": NOW,
        "created_at": NOW,
    }
    row = WebhookDelivery(**(values | changes))
    c.execute(insert(table_of(WebhookDelivery)).values(**row.model_dump()))
    return row
