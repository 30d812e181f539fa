"""Service tiers: what they ask for, how `priority` goes with them, and what is echoed."""

import pytest

from api.protocol.kinds import fold_of, object_of
from api.protocol.shared.job_request import JobRequest as Request
from api.protocol.shared.tiers import tier_of
from storage.contract import FinishReason, JobKind, PriorityQueue
from tests.protocol.examples import GENERATION_KINDS, end, event, header, payloads, start, tokens
from tests.protocol.test_sampling_fields import REQUESTS, prepared, refused_field

LOG = [start(), tokens(1, event("x")), tokens(2, event("y", finish=FinishReason.STOP)), end(3)]


@pytest.mark.parametrize("request_type", REQUESTS)
@pytest.mark.parametrize(
    ("name", "tier", "priority_queue"),
    [
        ("auto", "default", PriorityQueue.FRONT),
        ("default", "default", PriorityQueue.FRONT),
        ("scale", "default", PriorityQueue.FRONT),
        ("priority", "priority", PriorityQueue.PRIORITY),
        ("fast", "priority", PriorityQueue.PRIORITY),
        ("ultrafast", "priority", PriorityQueue.PRIORITY),
        ("flex", "flex", PriorityQueue.BACK),
        (None, "default", PriorityQueue.FRONT),
    ],
)
def test_a_tier_is_a_priority_queue(
    request_type: type[Request], name: str | None, tier: str, priority_queue: PriorityQueue
) -> None:
    job = prepared(request_type, service_tier=name)

    assert job.spec.priority_queue is priority_queue
    assert tier_of(job.request) == tier


@pytest.mark.parametrize("request_type", REQUESTS)
def test_a_background_job_waits_behind_others_unless_it_names_a_tier_that_does_not(request_type: type[Request]) -> None:
    quiet, auto, urgent = (
        prepared(request_type, True, **fields)
        for fields in ({}, {"service_tier": "auto"}, {"service_tier": "priority"})
    )

    assert [job.spec.priority_queue for job in (quiet, auto, urgent)] == [
        PriorityQueue.BACK,
        PriorityQueue.BACK,
        PriorityQueue.PRIORITY,
    ]
    assert [tier_of(job.request) for job in (quiet, auto, urgent)] == ["default", "default", "priority"]


@pytest.mark.parametrize("request_type", REQUESTS)
def test_a_priority_moves_a_job_within_its_tier_and_decides_where_none_is_demanded(request_type: type[Request]) -> None:
    for fields, tier in (
        ({"priority": -11}, "priority"),
        ({"priority": -9}, "default"),
        ({"priority": 9, "service_tier": "auto"}, "default"),
        ({"priority": 10, "service_tier": "default"}, "flex"),
        ({"priority": 900, "service_tier": "flex"}, "flex"),
        ({"priority": -1000, "service_tier": "fast"}, "priority"),
    ):
        job = prepared(request_type, **fields)
        assert (job.spec.priority, tier_of(job.request)) == (fields["priority"], tier)

    assert refused_field(request_type, priority=9, service_tier="flex") == "priority"
    assert refused_field(request_type, priority=0, service_tier="priority") == "priority"


@pytest.mark.parametrize("kind", GENERATION_KINDS)
def test_objects_and_chunks_tell_the_tier_that_was_used(kind: JobKind) -> None:
    asked = header(kind, {"service_tier": "fast"})

    fold = fold_of(asked)
    said = payloads([*fold.open(), *(frame for entry in LOG for frame in fold.feed(entry))])
    # Of the events of Responses, those that show the response.
    shown = said if kind is not JobKind.RESPONSE else [one["response"] for one in said if "response" in one]
    objects = [object_of(asked, LOG), *shown]

    assert {one["service_tier"] for one in objects} == {"priority"}  # type: ignore[index]  # JSON objects


def test_a_completion_tells_its_tier_where_one_was_named() -> None:
    assert "service_tier" not in object_of(header(JobKind.COMPLETION, {"priority": -20}), LOG)
