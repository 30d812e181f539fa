"""Response models of webhooks for the OpenAPI schema. Answers are built by `api/webhooks`, not by these classes."""

from typing import Literal

from pydantic import BaseModel


class WebhookEndpointObject(BaseModel):
    """A webhook endpoint; the signing secret is shown once, when it is made."""

    id: str
    object: Literal["webhook_endpoint"]
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str
    enabled: bool
    disabled_reason: str | None
    signing_secret: str | None = None


class WebhookAttemptObject(BaseModel):
    """One attempt of a delivery."""

    number: int
    started_at: int
    latency_ms: int | None
    status_code: int | None
    error: str | None
    answer: str | None


class WebhookDeliveryObject(BaseModel):
    """A webhook event for one endpoint or target, with its attempts."""

    id: str
    object: Literal["webhook_delivery"]
    created_at: int
    event_id: str
    event_type: str
    job_id: str | None
    webhook_endpoint_id: str | None
    url: str
    status: Literal["pending", "delivered", "dead"]
    next_attempt_at: int | None
    ended_at: int | None
    num_attempts: int
    attempts: list[WebhookAttemptObject]


class WebhookTestObject(BaseModel):
    """The answer of an endpoint to a test event."""

    object: Literal["webhook_endpoint.test"]
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: bool


class RedeliveryObject(BaseModel):
    """How many deliveries will be made again."""

    object: Literal["webhook_endpoint.redelivery"]
    webhook_endpoint_id: str
    num_deliveries: int


class WebhookSecretObject(BaseModel):
    """An owner's default signing secret."""

    object: Literal["webhook_secret"]
    signing_secret: str
    signing_secret_hint: str


class EventTypeList(BaseModel):
    """All webhook event types."""

    object: Literal["list"]
    data: list[str]


class _Page(BaseModel):
    object: Literal["list"]
    first_id: str | None
    last_id: str | None
    has_more: bool


class WebhookEndpointList(_Page):
    """A page of webhook endpoints."""

    data: list[WebhookEndpointObject]


class WebhookDeliveryList(_Page):
    """A page of webhook deliveries."""

    data: list[WebhookDeliveryObject]
