"""Service tiers and priorities: OpenAI's `service_tier`, our `priority`, and the rules between them.

Source: OpenAI specification of 2026-08-21; `priority` has the name and meaning of vLLM's extra parameter. A tier is a
range of priorities, which selects a priority queue: see docs/decisions/0019-service-tiers-and-aging.md.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self, assert_never

from pydantic import Field, model_validator

from api.protocol.shared.wire import WireRequest, fault
from storage.contract import BACKGROUND_PRIORITY, URGENT_PRIORITY, PriorityQueue, priority_queue_of

ServiceTier = Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"]
Tier = Literal["priority", "default", "flex"]
# The tiers that select a priority queue. The other tiers leave it to `priority`.
_PRIORITY_BY_TIER: Mapping[object, int] = {
    "priority": URGENT_PRIORITY,
    "fast": URGENT_PRIORITY,
    "ultrafast": URGENT_PRIORITY,
    "flex": BACKGROUND_PRIORITY,
}
_Priority = Annotated[int, Field(ge=-1000, le=1000)]


class TieredRequest(WireRequest):
    """Priority fields of a create request."""

    priority: _Priority | None = None
    service_tier: ServiceTier | None = None

    @model_validator(mode="after")
    def _has_a_priority_of_its_tier(self) -> Self:
        wanted = _PRIORITY_BY_TIER.get(self.service_tier)
        if (
            wanted is not None
            and self.priority is not None
            and priority_queue_of(self.priority) is not priority_queue_of(wanted)
        ):
            raise fault("priority", "it is not one of the 'service_tier': priority is -10 and less, flex 10 and more")
        return self


def priority_of(request: TieredRequest, *, is_background: bool) -> int:
    """The job's priority: the request's own, else its tier's, else the default of background or foreground jobs."""
    if request.priority is not None:
        return request.priority
    return _PRIORITY_BY_TIER.get(request.service_tier, BACKGROUND_PRIORITY if is_background else 0)


def tier_of(sent: Mapping[str, object]) -> Tier:
    """The service tier of a request, from its body as sent.

    A background job without tier and priority reports the default tier, although its priority is lower.
    """
    number = sent.get("priority", _PRIORITY_BY_TIER.get(sent.get("service_tier"), 0))
    assert isinstance(number, int)
    priority_queue = priority_queue_of(number)
    match priority_queue:
        case PriorityQueue.PRIORITY:
            return "priority"
        case PriorityQueue.FRONT:
            return "default"
        case PriorityQueue.BACK:
            return "flex"
        case _:
            assert_never(priority_queue)
