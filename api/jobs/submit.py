"""Job submission: subscribe, insert the row, then send the ticket."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import cast

import msgspec
from sqlalchemy.exc import IntegrityError

from api.caches.catalogue import ModelEntry
from api.jobs.admission import admit
from api.jobs.create_request import CreateRequest, digest_of
from api.jobs.idempotent_replay import find_replay, follow_replay, key_expiry, keyed_of
from api.jobs.job_services import JobServices
from api.jobs.job_views import conversation_so_far, previous_not_found, previous_turn
from api.jobs.submitted import Submitted
from api.protocol.jobs.prepared import Prepared
from api.protocol.kinds import prepare
from api.protocol.responses.conversation_history import ConversationHistory
from api.protocol.responses.item_history import Item
from api.protocol.responses.prepare import Previous
from api.protocol.responses.stored_items import PreviousResponse
from api.protocol.shared.job_request import CreateJobRequest
from api.protocol.shared.tiers import priority_of
from api.protocol.structured.constraints import Constraint, Judged
from api.protocol.structured.format_fields import constraints_of
from api.protocol.thinking.signed_thoughts import thought_key
from api.settings import ApiSettings
from storage.accounts.idempotency import KeyedRequest
from storage.contract import JobHeader, PriorityQueue, priority_queue_of
from storage.database.group_commit import Insert
from storage.errors import (
    ConversationChanged,
    ConversationLocked,
    IdempotencyKeyInUse,
    PlatformError,
    StorageUnavailable,
)
from storage.ids import new_job_id
from storage.jobs import attaching, jobs
from storage.jobs.attaching import Attached
from storage.jobs.records import NewJob
from storage.turns import turns
from storage.turns.turns import NotStarted

# Up to here, reading a prompt on the event loop costs less than sending it to a thread.
_SMALL_BODY_BYTES = 32 * 1024
# As above: hashing runs at about 1 GB/s.
_SMALL_DIGEST_BYTES = 256 * 1024
# Prompts that are made for one turn, where items are added to its conversation meanwhile.
_MAX_STARTS = 5


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed request and how its path treats it.

    create_request: the HTTP request
    is_background:  the job runs on without a waiting caller, and is queued while no worker is alive
    is_followed:    a caller waits for the job's entries
    store_default:  what an absent `store` means; None is the protocol's default
    """

    create_request: CreateRequest
    request: CreateJobRequest
    is_background: bool = False
    is_followed: bool = True
    store_default: bool | None = None


async def submit(services: JobServices, order: Order) -> Submitted:
    """The committed job with its ticket sent, or that of an earlier attempt; PlatformError when none was created."""
    create_request = order.create_request
    digest = await _digest_of(services, create_request)
    replay = await find_replay(services, create_request, digest, is_followed=order.is_followed)
    if replay is not None:
        return replay
    keyed = keyed_of(create_request, digest)
    if keyed is None:
        return await _make_or_note(services, order, digest)
    with services.idempotency_keys_in_flight.using(keyed):
        return await _make(services, order, digest, keyed)


async def _digest_of(services: JobServices, create_request: CreateRequest) -> bytes:
    if len(create_request.body) <= _SMALL_DIGEST_BYTES:
        return digest_of(create_request)
    return await services.cpu_bound.run(lambda: digest_of(create_request))


async def _make_or_note(services: JobServices, order: Order, digest: bytes) -> Submitted:
    try:
        return await _make(services, order, digest, None)
    except PlatformError as error:
        if error.retryable:
            services.refusals.note(digest, asyncio.get_running_loop().time())
        raise


async def _make(services: JobServices, order: Order, digest: bytes, keyed: KeyedRequest | None) -> Submitted:
    entry, caller = await services.catalogue.get(order.request.model), order.create_request.caller
    priority_queue = priority_queue_of(priority_of(order.request, is_background=order.is_background))
    await admit(services, entry, caller.project, priority_queue, is_background=order.is_background)
    target = order.request.webhook
    if target is not None:
        await services.webhook_url_check.judge(target.url, param="webhook.url", owner=caller.project)
    for _ in range(_MAX_STARTS - 1):
        try:
            return await _start(services, order, entry, priority_queue, digest, keyed)
        except ConversationChanged:
            continue
    return await _start(services, order, entry, priority_queue, digest, keyed)


async def _start(
    services: JobServices,
    order: Order,
    entry: ModelEntry,
    priority_queue: PriorityQueue,
    digest: bytes,
    keyed: KeyedRequest | None,
) -> Submitted:
    """The job of an admitted request; raises ConversationChanged where its prompt has become outdated."""
    caller = order.create_request.caller
    previous = await find_previous(
        services,
        caller.project,
        order.request,
        num_bytes=len(order.create_request.body),
        context_length=entry.context_length if order.request.is_truncated else None,
    )
    constraints = await _constraints_of(services, order)
    judged = await services.constraint_checks.judge(caller.project, constraints) if constraints else {}
    prepared = await _prepare(services, order, entry, previous, judged)
    # Checked again: others were accepted while this request was prepared. Nothing is awaited until it is counted.
    services.admission_limits.check(caller.project, entry.model, priority_queue)
    new = _new_job(order, prepared, digest, services.database.clock.now(), previous)
    subscription = services.streaming.relay.subscribe(new.job_id) if order.is_followed else None
    if subscription is not None:
        subscription.is_stored = False
    # Counted before the row is written: a snapshot that is read meanwhile may miss the job, but none counts it twice.
    reservation = services.statistics.reserve(new.owner, new.model, priority_queue)
    try:
        attached = await _insert(services, new, keyed)
    except BaseException:
        reservation.release()
        if subscription is not None:
            services.streaming.relay.unsubscribe(subscription)
        raise
    if attached is None:
        if subscription is not None:
            subscription.is_stored = True
        services.tickets.send(new.job_id, new.model, new.spec.priority_queue)
        return Submitted(
            header=_header_of(new),
            subscription=subscription,
            position=reservation.position,
            unenforced=prepared.unenforced,
        )
    reservation.release()
    # The same request at another process was faster.
    if subscription is not None:
        services.streaming.relay.unsubscribe(subscription)
    replay = await follow_replay(services, order.create_request, attached, is_followed=order.is_followed)
    if replay is None:
        raise IdempotencyKeyInUse
    return replay


async def _constraints_of(services: JobServices, order: Order) -> tuple[Constraint, ...]:
    """The schemas and grammars of the request; those of a large body are encoded in a thread."""
    if len(order.create_request.body) <= _SMALL_BODY_BYTES:
        return constraints_of(order.request)
    return await services.cpu_bound.run(lambda: constraints_of(order.request))


async def _prepare(
    services: JobServices,
    order: Order,
    entry: ModelEntry,
    previous: Previous | None,
    judged: Mapping[str, Judged],
) -> Prepared:
    """The request as a job spec; large ones are prepared in a thread."""
    tools = await services.catalogue.tools_of(entry)
    # A seed need not be secret; the operating system's randomness would cost a system call.
    seed = random.getrandbits(63)

    def work() -> Prepared:
        return prepare(
            order.request,
            tools,
            previous=previous,
            seed=seed,
            store_default=order.store_default,
            is_background=order.is_background,
            judged=judged,
            thought_key=thought_key_of(services.settings, order.create_request.caller.project, entry.model),
        )

    if previous is None and len(order.create_request.body) <= _SMALL_BODY_BYTES:
        return work()
    return await services.cpu_bound.run(work)


def thought_key_of(settings: ApiSettings, project: str, model: str) -> str | None:
    """The key that signs a project's thoughts of a model; None where this installation has no pepper."""
    if settings.pepper is None:
        return None
    return thought_key(settings.pepper.get_secret_value().encode(), project, model)


async def find_previous(
    services: JobServices,
    owner: str,
    request: CreateJobRequest,
    *,
    num_bytes: int,
    context_length: int | None = None,
    is_turn: bool = True,
) -> Previous | None:
    """The previous response or the conversation that the request continues, if any.

    num_bytes:      of the request itself, which its chain will hold too
    context_length: of its conversation only the end that may fit so many tokens is read; None reads all of it
    is_turn:        whether the request makes a turn of a conversation

    Raises PreviousResponseNotFound, ConversationNotFound, ConversationLocked and ContextTooLarge.
    """
    previous_id, conversation_id = request.previous_id, request.conversation_id
    max_bytes = services.settings.max_chain_bytes - num_bytes
    if conversation_id is not None:
        return await services.database.reads.ask(
            lambda connection: conversation_so_far(
                connection,
                conversation_id,
                owner,
                max_bytes=max_bytes,
                context_length=context_length,
                is_turn=is_turn,
            )
        )
    if previous_id is None:
        return None
    return await services.database.reads.ask(
        lambda connection: previous_turn(
            connection, previous_id, owner, max_bytes=max_bytes, context_length=context_length
        )
    )


def _new_job(order: Order, prepared: Prepared, digest: bytes, now: datetime, previous: Previous | None) -> NewJob:
    caller = order.create_request.caller
    parent = previous if isinstance(previous, PreviousResponse) else None
    conversation = previous if isinstance(previous, ConversationHistory) else None
    return NewJob(
        job_id=new_job_id(prepared.kind),
        owner=caller.project,
        project_id=caller.project,
        key_id=caller.key_id,
        kind=prepared.kind,
        model=prepared.model,
        background=order.is_background,
        store=prepared.store,
        request=prepared.request,
        context=prepared.context,
        metadata=prepared.metadata,
        spec=prepared.spec,
        created_at=now,
        expires_at=_later(now, _deadline_s(order.request)),
        cancel_at=_later(now, order.create_request.cancel_after_s),
        body_digest=digest if order.create_request.key is None else None,
        webhook=None if order.request.webhook is None else order.request.webhook.stored,
        parent_id=None if parent is None else parent.job_id,
        # The body stands for the items in it, which are hardly larger.
        chain_bytes=len(order.create_request.body) + (0 if parent is None else parent.chain_bytes),
        continuation_id=order.request.continuation_id,
        conversation_id=None if conversation is None else conversation.conversation_id,
        conversation_position=None if conversation is None else conversation.position,
    )


def _deadline_s(request: CreateJobRequest) -> int | None:
    """Seconds until the job expires: the earlier of its own deadline and the end of its window."""
    own, window_s = None if request.expires_after is None else request.expires_after.seconds, request.window_s
    if own is None or window_s is None:
        return window_s if own is None else own
    return min(own, window_s)


def _later(now: datetime, seconds: int | None) -> datetime | None:
    return None if seconds is None else now + timedelta(seconds=seconds)


def _header_of(new: NewJob) -> JobHeader:
    return JobHeader(
        job_id=new.job_id,
        kind=new.kind,
        model=new.model,
        created_at=int(new.created_at.timestamp()),
        request=new.request,
        context=new.context,
        background=new.background,
    )


async def _insert(services: JobServices, new: NewJob, keyed: KeyedRequest | None) -> Attached | None:
    """None when the row is committed, or the job of a faster request; without an answer in time the row is erased."""
    rows = jobs.rows_of(new, services.settings.retention_s(new.store))
    try:
        if new.conversation_id is not None:
            return await _insert_turn(services, new, rows, keyed)
        if keyed is None:
            await services.database.inserts.add(*rows)
            return None
        expires_at = key_expiry(services, new.created_at)
        return await services.database.write_promptly(
            lambda c: attaching.insert_keyed(c, rows, keyed, now=new.created_at, expires_at=expires_at)
        )
    except IntegrityError as error:
        if new.parent_id is None:
            raise
        # The job that it continues was erased a moment ago.
        raise previous_not_found(new.parent_id) from error
    except (StorageUnavailable, asyncio.CancelledError):
        # The row may still be committed, and no caller has its id.
        services.compensating_delete.erase(new.job_id)
        raise


async def _insert_turn(
    services: JobServices, new: NewJob, rows: Sequence[Insert], keyed: KeyedRequest | None
) -> Attached | None:
    """As `_insert`, for a turn; raises ConversationLocked and ConversationChanged."""
    items = cast(list[Item], new.context["input_items"])
    item_ids = [cast(str | None, item.get("id")) for item in items]
    key_expires_at = key_expiry(services, new.created_at)
    started = await services.database.write_promptly(
        lambda c: turns.start(c, new, rows, keyed, item_ids=item_ids, key_expires_at=key_expires_at)
    )
    match started:
        case NotStarted.LOCKED:
            raise ConversationLocked
        case NotStarted.CHANGED:
            raise ConversationChanged
        case _:
            return started
