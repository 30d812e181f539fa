"""How long a job may take: `expires_after`, which is ours, in the shape that OpenAI gives it elsewhere."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticKnownError

from api.protocol.shared.wire import Wire, WireRequest

MAX_DEADLINE_S = 30 * 86400


class Expiry(Wire):
    """Seconds after the job was created."""

    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Field(ge=1, le=MAX_DEADLINE_S)]


def _spelled_out(value: object) -> object:
    """A bare number as an object; one that is wrong is told by the name under which it was sent."""
    if value is None or isinstance(value, dict | Expiry):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise PydanticKnownError("int_type")
    if value < 1:
        raise PydanticKnownError("greater_than_equal", {"ge": 1})
    if value > MAX_DEADLINE_S:
        raise PydanticKnownError("less_than_equal", {"le": MAX_DEADLINE_S})
    return {"seconds": value}


class DatedRequest(WireRequest):
    """What a request of any protocol may say about its deadline: a number of seconds, or an object with its anchor."""

    expires_after: Annotated[Expiry | None, BeforeValidator(_spelled_out)] = None
