"""Job services: what creating, reading, following and cancelling jobs needs."""

from dataclasses import dataclass

from starlette.requests import Request

from api.caches.catalogue import Catalogue
from api.caches.database_access import DatabaseAccess
from api.capacity.admission_limits import AdmissionLimits
from api.capacity.queue_statistics import QueueStatistics
from api.cpu_bound_work import CpuBoundWork
from api.jobs.abandoned_jobs import AbandonedJobs
from api.jobs.callers import Callers
from api.jobs.compensating_delete import CompensatingDelete
from api.jobs.idempotency_keys_in_flight import IdempotencyKeysInFlight
from api.jobs.recent_refusals import RecentRefusals
from api.protocol.checking.constraint_checks import ConstraintChecks
from api.settings import ApiSettings
from api.streaming.streaming_services import StreamingServices
from api.webhooks.url_check import WebhookUrlCheck
from storage.broker.celery_queue import TicketPublisher


@dataclass(frozen=True, slots=True, kw_only=True)
class JobServices:
    """The services of one process that handle jobs."""

    settings: ApiSettings
    database: DatabaseAccess
    streaming: StreamingServices
    cpu_bound: CpuBoundWork
    catalogue: Catalogue
    statistics: QueueStatistics
    admission_limits: AdmissionLimits
    tickets: TicketPublisher
    webhook_url_check: WebhookUrlCheck
    idempotency_keys_in_flight: IdempotencyKeysInFlight
    refusals: RecentRefusals
    callers: Callers
    abandoned_jobs: AbandonedJobs
    compensating_delete: CompensatingDelete
    constraint_checks: ConstraintChecks


def jobs_of(request: Request) -> JobServices:
    """The job services of this process."""
    services = request.scope["app"].state.jobs
    assert isinstance(services, JobServices)
    return services
