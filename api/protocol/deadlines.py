"""How long a job may take: `expires_after`, which is ours, in the shape that OpenAI gives it elsewhere."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from api.protocol.wire import Wire, WireRequest

MAX_DEADLINE_S = 30 * 86400


class Expiry(Wire):
    """Seconds after the job was created."""

    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Field(ge=1, le=MAX_DEADLINE_S)]


def _spelled_out(value: object) -> object:
    return value if value is None or isinstance(value, dict | Expiry) else {"seconds": value}


class DatedRequest(WireRequest):
    """What a request of any protocol may say about its deadline: a number of seconds, or an object with its anchor."""

    expires_after: Annotated[Expiry | None, BeforeValidator(_spelled_out)] = None
