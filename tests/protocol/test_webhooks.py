"""What requests may say about webhooks."""

import json

import pytest

from api.protocol.chat.request import ChatRequest
from api.protocol.completions.request import CompletionRequest
from api.protocol.kinds import prepare
from api.protocol.responses.request import ResponseRequest
from api.protocol.shared.webhook_fields import EndpointTest, EndpointUpdate, NewEndpoint, Redelivery, SecretRotation
from api.protocol.shared.wire import WireRequest
from storage.errors import InvalidRequest
from storage.webhooks.signing import new_secret
from tests.protocol.examples import body, tools

URL = "https://example.com/hook"
USER = {"role": "user", "content": "hi"}
REQUESTS: list[tuple[type[ResponseRequest | ChatRequest | CompletionRequest], dict[str, object], str]] = [
    (ResponseRequest, {"input": "hi"}, "response"),
    (ChatRequest, {"messages": [USER]}, "chat.completion"),
    (CompletionRequest, {"prompt": "hi"}, "completion"),
]
NAMES = ["response", "chat", "completion"]
MANY = [f"name {number}" for number in range(10**5)]


@pytest.mark.parametrize(("request_type", "minimal", "noun"), REQUESTS, ids=NAMES)
def test_events_have_long_and_short_names(
    request_type: type[ResponseRequest | ChatRequest | CompletionRequest], minimal: dict[str, object], noun: str
) -> None:
    events = ["failed", f"{noun}.completed", f"{noun}.failed"]

    target = request_type.parse(body(**minimal, webhook={"url": URL, "events": events})).webhook

    assert target is not None
    assert target.stored == {"url": URL, "events": [f"{noun}.failed", f"{noun}.completed"], "secret": None}


@pytest.mark.parametrize(("request_type", "minimal", "noun"), REQUESTS, ids=NAMES)
def test_a_job_with_a_target_is_stored_and_its_request_keeps_no_secret(
    request_type: type[ResponseRequest | ChatRequest | CompletionRequest], minimal: dict[str, object], noun: str
) -> None:
    target = {"url": URL, "secret": new_secret()}

    with_target = prepare(request_type.parse(body(**minimal, webhook=target)), tools(), seed=1)
    without_target = prepare(request_type.parse(body(**minimal, webhook=None)), tools(), seed=1)
    unstored = prepare(request_type.parse(body(**minimal, webhook=target, store=False)), tools(), seed=1)

    assert (with_target.store, unstored.store) == (True, False)
    assert with_target.request == without_target.request
    assert with_target.spec == without_target.spec


BAD_TARGETS: list[tuple[object, str]] = [
    ("https://example.com", "webhook"),
    ([], "webhook"),
    ({}, "webhook.url"),
    ({"url": None}, "webhook.url"),
    ({"url": ""}, "webhook.url"),
    ({"url": "x" * 2049}, "webhook.url"),
    ({"url": URL, "headers": {}}, "webhook.headers"),
    ({"url": URL, "events": "completed"}, "webhook.events"),
    ({"url": URL, "events": [1]}, "webhook.events[0]"),
    ({"url": URL, "events": ["done"]}, "webhook.events"),
    ({"url": URL, "events": ["batch.completed"]}, "webhook.events"),
    ({"url": URL, "events": MANY}, "webhook.events"),
    ({"url": URL, "secret": ""}, "webhook.secret"),
    ({"url": URL, "secret": "hunter2"}, "webhook.secret"),
    ({"url": URL, "secret": "whsec_AAAA"}, "webhook.secret"),
    ({"url": URL, "secret": "whsec_" + "A" * 1000}, "webhook.secret"),
    ({"url": URL, "secret": "whsec_\u00e4" + "A" * 43}, "webhook.secret"),
    ({"url": URL, **dict.fromkeys(MANY)}, "webhook.name 0"),
]


@pytest.mark.parametrize(("target", "param"), BAD_TARGETS, ids=lambda value: str(value)[:50])
@pytest.mark.parametrize(("request_type", "minimal", "noun"), REQUESTS, ids=NAMES)
def test_a_bad_target_is_refused_by_name(
    request_type: type[WireRequest], minimal: dict[str, object], noun: str, target: object, param: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        request_type.parse(body(**minimal, webhook=target))

    assert refusal.value.param == param
    assert "hunter2" not in refusal.value.message


@pytest.mark.parametrize("other", ["chat.completion.completed", "completion.failed"])
def test_a_response_has_no_events_of_other_jobs(other: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        ResponseRequest.parse(body(input="hi", webhook={"url": URL, "events": [other]}))

    assert refusal.value.param == "webhook.events"


BAD_BODIES: list[tuple[type[WireRequest], dict[str, object], str]] = [
    (NewEndpoint, {"url": URL}, "name"),
    (NewEndpoint, {"name": "x"}, "url"),
    (NewEndpoint, {"name": "x", "url": URL, "event_types": ["completed"]}, "event_types[0]"),
    (NewEndpoint, {"name": "x", "url": URL, "event_types": MANY}, "event_types[0]"),
    (NewEndpoint, {"name": "x", "url": URL, "enabled": True}, "enabled"),
    (EndpointUpdate, {"name": ""}, "name"),
    (EndpointUpdate, {"enabled": 1}, "enabled"),
    (EndpointUpdate, {"signing_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}, "signing_secret"),
    (SecretRotation, {"keep_old_secret_active_for_24_hours": "yes"}, "keep_old_secret_active_for_24_hours"),
    (EndpointTest, {}, "event_type"),
    (EndpointTest, {"event_type": "eval.run.failed"}, "event_type"),
    (Redelivery, {}, "since"),
    (Redelivery, {"since": "yesterday"}, "since"),
    (Redelivery, {"since": 10**12}, "since"),
    (Redelivery, {"since": 1, "status": "sent"}, "status"),
]


@pytest.mark.parametrize(("request_type", "fields", "param"), BAD_BODIES, ids=lambda value: str(value)[:50])
def test_a_bad_body_is_refused_by_name(request_type: type[WireRequest], fields: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        request_type.parse(json.dumps(fields).encode())

    assert refusal.value.param == param


def test_a_repeated_type_counts_once() -> None:
    types = ["response.failed", "response.completed", "response.failed"]

    wanted = NewEndpoint.parse(json.dumps({"name": "x", "url": URL, "event_types": types}).encode())

    assert wanted.event_types == ["response.failed", "response.completed"]
