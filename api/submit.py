"""From a request to a stored and queued job: row first, ticket second, and an ear at its log before both."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from api.catalogue import CatalogueEntry
from api.protocol.folds import object_of
from api.protocol.items import PreviousResponse, previous_of
from api.protocol.prepare import Prepared, Request, prepare
from api.protocol.responses import ResponseRequest
from api.relay import Subscription
from api.services import Services
from storage import jobs
from storage.contract import JobHeader, JobKind, JobStatus
from storage.errors import JobNotFound, PreviousResponseNotFound
from storage.ids import new_job_id
from storage.tables import Job

# Tokenizing more than this takes longer than the event loop may be kept waiting.
_INLINE_BYTES = 16_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A request as its path understands it.

    size_bytes:    of the body, to know where tokenizing belongs
    is_background: nobody waits for it, so no worker needs to be alive, and nobody's leaving ends it
    store_default: what an absent `store` means; None is the protocol's own
    """

    request: Request
    owner: str
    size_bytes: int
    is_background: bool
    is_listened_to: bool
    store_default: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A job that is committed and on its way; `subscription` is set for one that is listened to."""

    header: JobHeader
    subscription: Subscription | None


async def submit(services: Services, order: Order) -> Submitted:
    """Accept the order; when this returns its row is committed.

    Raises ModelNotFound, ModelUnavailable, InvalidRequest and its kin, StorageUnavailable; then nothing was stored.
    """
    entry = await services.catalogue.get(order.request.model)
    if not order.is_background:
        await services.catalogue.require_alive(entry)
    prepared = await _prepare(services, order, entry)
    now = datetime.now(UTC)
    new = _new_job(prepared, order, now)
    subscription = services.relay.expect(new.job_id) if order.is_listened_to else None
    try:
        await services.writer.add(Job, jobs.row_of(new, services.settings.retention_s(new.store)))
    except BaseException:
        if subscription is not None:
            subscription.close()
        raise
    services.tickets.send(new.job_id, new.model)
    return Submitted(header=_header_of(new), subscription=subscription)


async def find_previous(services: Services, order_owner: str, request: Request) -> PreviousResponse | None:
    """The turn that the request continues; PreviousResponseNotFound when it is not there or not over."""
    if not isinstance(request, ResponseRequest) or request.previous_response_id is None:
        return None
    previous_id = request.previous_response_id
    refusal = PreviousResponseNotFound(
        f"Previous response with id '{previous_id[:100]}' not found.", param="previous_response_id"
    )
    try:
        job = await services.read(lambda connection: jobs.get(connection, previous_id, order_owner))
    except JobNotFound:
        raise refusal from None
    if job.kind is not JobKind.RESPONSE:
        raise refusal
    if not job.status.is_terminal:
        raise PreviousResponseNotFound(
            f"Previous response '{previous_id}' is still {job.status}; wait for its end.", param="previous_response_id"
        )
    header = jobs.header_of(job)
    return previous_of(header, object_of(header, jobs.result_of(job), jobs.end_of(job)))


async def _prepare(services: Services, order: Order, entry: CatalogueEntry) -> Prepared:
    previous = await find_previous(services, order.owner, order.request)

    def run() -> Prepared:
        return prepare(
            order.request,
            entry.tools,
            previous=previous,
            seed=secrets.randbits(63),
            store_default=order.store_default,
        )

    if order.size_bytes <= _INLINE_BYTES and previous is None:
        return run()
    return await services.on_thread(run)


def _new_job(prepared: Prepared, order: Order, now: datetime) -> jobs.NewJob:
    return jobs.NewJob(
        job_id=new_job_id(prepared.kind),
        owner=order.owner,
        kind=prepared.kind,
        model=prepared.model,
        background=order.is_background,
        store=prepared.store,
        request=prepared.request,
        context=prepared.context,
        metadata=prepared.metadata,
        spec=prepared.spec,
        created_at=now,
    )


def _header_of(new: jobs.NewJob) -> JobHeader:
    return JobHeader(
        job_id=new.job_id,
        kind=new.kind,
        model=new.model,
        created_at=int(new.created_at.timestamp()),
        request=new.request,
        context=new.context,
        background=new.background,
        status=JobStatus.QUEUED,
    )


def receipt_of(header: JobHeader) -> dict[str, object]:
    """A response job as it stands right after its submission."""
    return object_of(header, ())


def as_json(value: object) -> bytes:
    """Ready bytes of a JSON body."""
    return msgspec.json.encode(value)
