"""Webhooks on the wire: what the bodies of requests may say.

Source: openai SDK 3.52.0, `client.webhooks`. Ours are `webhook` in the request of a job, `enabled` of an endpoint, and
redelivery.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from api.protocol.shared.wire import Name, Wire, WireRequest, fault
from storage.contract import JobKind
from storage.network.url_policy import MAX_URL_LENGTH
from storage.webhooks.event_types import EVENT_TYPES, NOUNS, event_types_of
from storage.webhooks.signing import is_secret

# The year 9999, the last that a moment can lie in.
_MAX_MOMENT_S = 253_402_300_799


def _known(event_type: str) -> str:
    if event_type not in EVENT_TYPES:
        raise PydanticCustomError("event_type", "names a type that is not told here, see /v1/webhook_event_types")
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
    """Who is told of one job, besides its owner's endpoints.

    events: types of the job's kind, whole (`response.completed`) or only how it ends (`completed`); all where absent
    secret: what its events are signed with; the owner's default secret where absent
    """

    url: Url
    events: _EventNames | None = None
    secret: Secret | None = None

    @property
    def stored(self) -> dict[str, object]:
        """What its job's row says of it."""
        return {"url": self.url, "events": self.events, "secret": self.secret}


def told_of(kind: JobKind) -> AfterValidator:
    """Marks the target of a job of this kind: of its events the names are made whole, others are refused."""
    own = event_types_of(kind)
    whole_by_name = {name.removeprefix(f"{NOUNS[kind]}."): name for name in own} | {name: name for name in own}

    def check(target: WebhookTarget) -> WebhookTarget:
        if target.events is None:
            return target
        if not whole_by_name.keys() >= set(target.events):
            raise fault("events", "it names a type that such a job has not, see /v1/webhook_event_types")
        whole = _without_repetition([whole_by_name[name] for name in target.events])
        return target.model_copy(update={"events": whole})

    return AfterValidator(check)


ResponseTarget = Annotated[WebhookTarget, told_of(JobKind.RESPONSE)]
ChatTarget = Annotated[WebhookTarget, told_of(JobKind.CHAT)]
CompletionTarget = Annotated[WebhookTarget, told_of(JobKind.COMPLETION)]


class NewEndpoint(WireRequest):
    """The body of `POST /v1/webhook_endpoints`; without types it is told everything."""

    name: Name
    url: Url
    event_types: EventTypes | None = None


class EndpointUpdate(WireRequest):
    """The body of `POST /v1/webhook_endpoints/{id}`: what is to change."""

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
    """The body of `POST /v1/webhook_endpoints/{id}/redeliver`: what happened since a Unix time."""

    since: Annotated[int, Field(ge=0, le=_MAX_MOMENT_S)]
    status: Literal["pending", "delivered", "dead"] | None = None
