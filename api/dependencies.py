"""What routes take from a request: the services, the owner, the body, the query."""

from collections.abc import Mapping

from starlette.requests import Request

from api.services import Services
from storage.errors import BodyTooLarge, InvalidRequest, UnsupportedMediaType, UnsupportedParameter

_JSON_TYPES = ("application/json", "text/json")


def services_of(request: Request) -> Services:
    """The services of the process that answers."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


def owner_of(request: Request) -> str:
    """Whose request it is, as the gate found."""
    owner = request.state.owner
    assert isinstance(owner, str)
    return owner


async def body_of(request: Request) -> bytes:
    """The whole body; BodyTooLarge as soon as it is longer than the limit."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type and media_type not in _JSON_TYPES and not media_type.endswith("+json"):
        raise UnsupportedMediaType(f"Send the body as application/json, not as '{media_type[:100]}'.")
    limit = services_of(request).settings.max_body_bytes
    length = request.headers.get("content-length", "")
    if length.isdigit() and (len(length) > 15 or int(length) > limit):
        raise _too_large(limit)
    pieces, size_bytes = [], 0
    async for piece in request.stream():
        size_bytes += len(piece)
        if size_bytes > limit:
            raise _too_large(limit)
        pieces.append(piece)
    return b"".join(pieces)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than {limit} bytes.")


class Query:
    """A request's query parameters, each of which a route must know."""

    def __init__(self, request: Request, *known: str) -> None:
        """Raises UnsupportedParameter for a name that is not among `known`."""
        self.pairs: Mapping[str, str] = request.query_params
        for name in self.pairs:
            if name.partition("[")[0] not in known:
                raise UnsupportedParameter(f"Unknown query parameter: '{name[:100]}'.", param=name[:100])

    def get_text(self, name: str) -> str | None:
        """The parameter as it is."""
        return self.pairs.get(name)

    def get_bool(self, name: str) -> bool:
        """True or false; absent is false."""
        value = self.pairs.get(name, "false").lower()
        if value not in ("true", "false", "1", "0"):
            raise InvalidRequest(f"Invalid '{name}': it must be true or false.", param=name)
        return value in ("true", "1")

    def get_int(self, name: str, *, default: int, low: int, high: int) -> int:
        """A whole number within bounds."""
        value = self.pairs.get(name)
        if value is None:
            return default
        is_number = value.isascii() and value.removeprefix("-").isdigit() and len(value) < 20
        if not is_number or not low <= int(value) <= high:
            raise InvalidRequest(f"Invalid '{name}': it must be a whole number from {low} to {high}.", param=name)
        return int(value)

    def get_order(self, *, default: str) -> str:
        """`asc` or `desc`."""
        order = self.pairs.get("order", default)
        if order not in ("asc", "desc"):
            raise InvalidRequest("Invalid 'order': it must be asc or desc.", param="order")
        return order

    def get_pairs(self, name: str) -> dict[str, str]:
        """The values of `name[key]=value` by key."""
        found = {}
        for spelled, value in self.pairs.items():
            head, bracket, key = spelled.partition("[")
            if head == name:
                if not bracket or not key.endswith("]"):
                    raise InvalidRequest(f"Invalid '{name}': write it as {name}[key]=value.", param=name)
                found[key.removesuffix("]")] = value
        return found
