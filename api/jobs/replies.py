"""HTTP responses for a submitted job: its stream, its outcome, or a 202 receipt."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import msgspec
from msgspec import structs
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.capacity.queue_status import queue_status_of
from api.cpu_bound_work import CpuBoundWork
from api.errors import JOB_ID, JobCancelled, JobExpired, JobFailed
from api.jobs.job_services import JobServices
from api.jobs.job_views import JobView
from api.jobs.stored_jobs import erase, follow, so_far, stored_result
from api.jobs.submitted import Submitted
from api.protocol.kinds import KINDS, deleted_object, fold_of, object_of, receipt_of, skip_of
from api.protocol.shared.envelope import failure_of
from api.streaming.disconnect import watched
from api.streaming.sse import EventStream, Notes
from api.streaming.subscription import Subscription
from api.streaming.subscription_states import SubscriptionState
from storage.contract import End, JobHeader, JobKind, JobStatus, LogEntry, Result
from storage.embedding_job import EmbeddingResult
from storage.errors import ShuttingDown, StorageUnavailable
from storage.jobs import waiting
from storage.jobs.deadlines import EXPIRED
from storage.jobs.waiting import QueuePosition

encode = msgspec.json.Encoder().encode
# Up to so many log entries, or bytes of vectors, an object is built and encoded on the event loop: with log
# probabilities in about 4 ms.
MANY_ENTRIES = 500
MANY_VECTOR_BYTES = 64 * 1024


def json_reply(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer of a small value."""
    return encoded_reply(encode(value), status=status, headers=headers)


def encoded_reply(body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer that is encoded already."""
    return Response(body, status, headers, "application/json")


async def threaded_reply(
    cpu_bound: CpuBoundWork, make: Callable[[], object], *, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON answer that may be large: it is built and encoded in a thread."""
    return encoded_reply(await cpu_bound.run(lambda: encode(make())), headers=headers)


async def sized_reply(
    cpu_bound: CpuBoundWork, make: Callable[[], object], entries: Sequence[object] | Result, headers: Mapping[str, str]
) -> Response:
    """A JSON answer made from log entries or a result, in a thread if that is large."""
    if _is_large(entries):
        return await threaded_reply(cpu_bound, make, headers=headers)
    return json_reply(make(), headers=headers)


def _is_large(entries: Sequence[object] | Result) -> bool:
    if isinstance(entries, EmbeddingResult):
        return len(entries.numbers) > MANY_VECTOR_BYTES
    return len(entries.entries if isinstance(entries, Result) else entries) > MANY_ENTRIES


class _Caller:
    """One waiting caller; a foreground job is cancelled when its last caller disconnects before the end."""

    def __init__(self, services: JobServices, submitted: Submitted) -> None:
        self._services = services
        self._job_id = submitted.header.job_id
        self._is_foreground = not submitted.header.background
        self._known: int | None = None
        if self._is_foreground:
            services.callers.add(self._job_id, submitted.number)

    def release(self, subscription: Subscription) -> None:
        """Stop counting the caller; call it once, whatever the reason."""
        _release(self._services, subscription)
        if self._is_foreground:
            self._known = self._services.callers.remove(self._job_id)

    async def cancel_if_last(self) -> None:
        """Cancel the job if this was its last caller; call it after `release` when the client disconnected early."""
        if self._known is not None:
            self._services.abandoned_jobs.add(self._job_id, self._known)


def stream_reply(services: JobServices, submitted: Submitted) -> Response:
    """The stream of a job from its start; the disconnect of its last caller cancels a foreground job."""
    caller = _Caller(services, submitted)
    return EventStream(
        fold_of(submitted.header),
        submitted.following,
        release=caller.release,
        on_leave=caller.cancel_if_last,
        notes=_notes_of(services, submitted.following, submitted.position),
    )


def replay_reply(services: JobServices, job: JobView, *, starting_after: int | None) -> Response:
    """The stream of a stored job from its start or from a cursor; a disconnect changes nothing."""
    header, subscription = job.header, follow(services, job)
    return EventStream(
        fold_of(header),
        subscription,
        release=partial(_release, services),
        skip=skip_of(header.kind, starting_after),
        notes=_notes_of(services, subscription, job.position),
    )


def _notes_of(services: JobServices, subscription: Subscription, position: QueuePosition | None) -> Notes | None:
    """The source of a stream's position comments; None for a job that has started."""
    return None if position is None else services.statistics.position_watchers.add(subscription)


def _release(services: JobServices, subscription: Subscription) -> None:
    services.streaming.relay.unsubscribe(subscription)
    services.statistics.position_watchers.remove(subscription)


async def job_reply(
    services: JobServices, job: JobView, extra: Mapping[str, object] = MappingProxyType({})
) -> Response:
    """The protocol object of a job as it is now; of a queued job with its position.

    extra: keys to add to the object
    """
    queue_status = queue_status_of(services.statistics, job.position, job.end)
    return await object_reply(services, job, {**extra, **queue_status.fields}, queue_status.headers)


async def object_reply(
    services: JobServices,
    job: JobView,
    fields: Mapping[str, object] = MappingProxyType({}),
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    """The protocol object of a job as it is now, with further fields and headers."""
    entries = await so_far(services, job)
    headers = {JOB_ID: job.header.job_id, **headers}
    return await sized_reply(services.cpu_bound, lambda: {**job.object(entries), **fields}, entries, headers)


async def erased_reply(services: JobServices, job_id: str, owner: str, kind: JobKind) -> Response:
    """Stop and erase the owner's job, and say so; raises JobNotFound."""
    await erase(services, job_id, owner, kind)
    return json_reply(deleted_object(kind, job_id))


def created_reply(services: JobServices, submitted: Submitted) -> Response:
    """A background job that was just created."""
    queue_status = queue_status_of(services.statistics, submitted.position, submitted.end)
    body = {**submitted.object(), **queue_status.fields}
    return json_reply(body, headers={JOB_ID: submitted.header.job_id, **queue_status.headers})


def receipt_reply(services: JobServices, submitted: Submitted, *, location: str = "", applied: str = "") -> Response:
    """202 and where the result will be.

    location: the path before the id, where it is not that of the job's kind
    """
    header, end = submitted.header, submitted.end
    queue_status = queue_status_of(services.statistics, submitted.position, end)
    body = receipt_of(header, submitted.so_far, end)
    headers = {"location": (location or KINDS[header.kind].path) + header.job_id, **queue_status.headers}
    return json_reply({**body, **queue_status.fields}, status=202, headers={**headers, **_headers_of(header, applied)})


def _headers_of(header: JobHeader, applied: str) -> dict[str, str]:
    headers = {JOB_ID: header.job_id}
    return {**headers, "preference-applied": applied} if applied else headers


class OutcomeReply(Response):
    """The job's object when it has ended, or a receipt when that takes longer than `wait_s`.

    When its last caller disconnects before that, a foreground job is cancelled.
    """

    def __init__(
        self, services: JobServices, submitted: Submitted, *, wait_s: float | None = None, applied: str = ""
    ) -> None:
        """applied: the part of the `Prefer` header that was applied"""
        self.background = None
        self._services = services
        self._submitted = submitted
        self._header = submitted.header
        self._subscription: Subscription = submitted.following
        self._caller = _Caller(services, submitted)
        self._wait_s = wait_s
        self._applied = applied

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with watched(receive, self._subscription.close):
                answer = await self._answer()
        except asyncio.CancelledError as error:
            raise ShuttingDown("This server is going down before the job's end; the job runs on.") from error
        finally:
            self._caller.release(self._subscription)
        if answer is not None:
            await answer(scope, receive, send)
        else:
            await self._caller.cancel_if_last()

    async def _answer(self) -> Response | None:
        """The response; None when the client has disconnected."""
        loop = asyncio.get_running_loop()
        deadline = None if self._wait_s is None else loop.time() + self._wait_s
        timer = None if deadline is None else loop.call_at(deadline, self._subscription.wake)
        entries: list[LogEntry] = []
        try:
            while self._subscription.state is not SubscriptionState.CLOSED:
                entries += await self._subscription.next()
                if entries and (end := entries[-1].end) is not None:
                    return await self._outcome(entries, end)
                if deadline is not None and loop.time() >= deadline:
                    return await self._receipt(entries)
        finally:
            if timer is not None:
                timer.cancel()
        return None

    async def _receipt(self, entries: list[LogEntry]) -> Response:
        position = None if entries else await self._position()
        return receipt_reply(
            self._services, structs.replace(self._submitted, so_far=entries, position=position), applied=self._applied
        )

    async def _position(self) -> QueuePosition | None:
        try:
            return await self._services.database.reads.ask(lambda c: waiting.find_position(c, self._header.job_id))
        except StorageUnavailable:
            return None  # a receipt without a position is still valid

    async def _outcome(self, entries: list[LogEntry], end: End) -> Response:
        if end.status is JobStatus.FAILED:
            failure = failure_of(end)
            raise (JobExpired if failure == EXPIRED else JobFailed)(self._header.job_id, failure)
        # The object of a cancelled response has a status for it; those of chat and completions have none.
        if end.status is JobStatus.CANCELLED and not KINDS[self._header.kind].shows_cancelled:
            raise JobCancelled(self._header.job_id)
        headers = _headers_of(self._header, self._applied)
        answer = entries if KINDS[self._header.kind].is_logged else await stored_result(self._services, self._header)
        return await sized_reply(
            self._services.cpu_bound, lambda: object_of(self._header, answer, end), answer, headers
        )
