"""Job deadlines: `expires_after`, an extension that has the shape of OpenAI's `expires_after` of files."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticKnownError

from api.protocol.shared.wire import Wire, WireRequest

MAX_DEADLINE_S = 30 * 86400


class Expiry(Wire):
    """A deadline in seconds after the job was created."""

    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Field(ge=1, le=MAX_DEADLINE_S)]


def _as_object(value: object) -> object:
    """A plain number as an object. A wrong number is refused under the name `expires_after`."""
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
    """The deadline field of a create request: a number of seconds, or an object with an anchor."""

    expires_after: Annotated[Expiry | None, BeforeValidator(_as_object)] = None
