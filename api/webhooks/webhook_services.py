"""Webhook services: what the routes of webhook endpoints and deliveries need."""

from dataclasses import dataclass

from starlette.requests import Request

from api.caches.database_access import DatabaseAccess
from api.webhooks.url_check import WebhookUrlCheck


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookServices:
    """The database, and the check of URLs that callers name."""

    database: DatabaseAccess
    url_check: WebhookUrlCheck


def webhooks_of(request: Request) -> WebhookServices:
    """The webhook services of this process."""
    services = request.scope["app"].state.webhooks
    assert isinstance(services, WebhookServices)
    return services
