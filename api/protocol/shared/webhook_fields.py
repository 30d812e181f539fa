"""Webhook request bodies and the `webhook` field of create requests.

Source: openai SDK 3.52.0, `client.webhooks`. Our own are the `webhook` field of a create request, `enabled` of an
endpoint, and redelivery.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from api.protocol.shared.wire import Name, Wire, WireRequest, fault
from storage.contract import JobKind
from storage.network.url_policy import MAX_URL_LENGTH
from storage.webhooks.event_types import EVENT_TYPES, event_types_of
from storage.webhooks.signing import is_secret

# The end of the year 9999, the last moment that a datetime can hold.
_MAX_MOMENT_S = 253_402_300_799


def _known(event_type: str) -> str:
    if event_type not in EVENT_TYPES:
        raise PydanticCustomError("event_type", "is not an event type of this server, see /v1/webhook_event_types")
    return event_type


def _without_repetition(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _good_secret(secret: str) -> str:
    if not is_secret(secret):
        raise PydanticCustomError("secret", "expected 'whsec_' and the base64 of 24 to 64 bytes")
    return secret


Url = Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL_LENGTH)]
Secret = Annotated[str, StringConstraints(max_length=128), AfterValidator(_good_secret)]
EventTypes = Annotated[
    list[Annotated[str, AfterValidator(_known)]],
    Field(max_length=64, fail_fast=True),
    AfterValidator(_without_repetition),
]
_EventNames = Annotated[list[Name], Field(max_length=64, fail_fast=True), AfterValidator(_without_repetition)]


class WebhookTarget(Wire):
    """A webhook target of one job, in addition to the owner's endpoints.

    events: event types of the job's kind, in full (`response.completed`) or as the status only (`completed`); all when
            absent
    secret: the signing secret; the owner's default secret when absent
    """

    url: Url
    events: _EventNames | None = None
    secret: Secret | None = None

    @property
    def stored(self) -> dict[str, object]:
        """The target as the job's row holds it."""
        return {"url": self.url, "events": self.events, "secret": self.secret}


def target_of(kind: JobKind) -> AfterValidator:
    """A validator of the target of a job of this kind: completes event types and refuses those of other kinds."""
    own = event_types_of(kind)
    whole_by_name = {name.removeprefix(f"{kind.noun}."): name for name in own} | {name: name for name in own}

    def check(target: WebhookTarget) -> WebhookTarget:
        if target.events is None:
            return target
        if not whole_by_name.keys() >= set(target.events):
            raise fault(
                "events", "it names an event type that this kind of job does not have, see /v1/webhook_event_types"
            )
        whole = _without_repetition([whole_by_name[name] for name in target.events])
        return target.model_copy(update={"events": whole})

    return AfterValidator(check)


class NewEndpoint(WireRequest):
    """The body of `POST /v1/webhook_endpoints`. Without event types the endpoint receives all of them."""

    name: Name
    url: Url
    event_types: EventTypes | None = None


class EndpointUpdate(WireRequest):
    """The body of `POST /v1/webhook_endpoints/{id}`: the fields to change."""

    name: Name | None = None
    url: Url | None = None
    event_types: EventTypes | None = None
    enabled: bool | None = None


class SecretRotation(WireRequest):
    """The body of `POST /v1/webhook_endpoints/{id}/rotate_secret`."""

    keep_old_secret_active_for_24_hours: bool | None = None


class EndpointTest(WireRequest):
    """The body of `POST /v1/webhook_endpoints/{id}/test`."""

    event_type: Annotated[str, AfterValidator(_known)]


class Redelivery(WireRequest):
    """The body of `POST /v1/webhook_endpoints/{id}/redeliver`: selects events since a Unix time."""

    since: Annotated[int, Field(ge=0, le=_MAX_MOMENT_S)]
    status: Literal["pending", "delivered", "dead"] | None = None
