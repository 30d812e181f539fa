"""Request accessors for routes: caller, body and query parameters."""

from collections.abc import Sequence
from typing import Literal, TypeVar

from starlette.requests import Request

from api.authentication.caller import Caller
from api.http.api_versions import QUERY_NAME as VERSION
from api.http.request_bodies import RequestBodies
from api.protocol.shared.lists import Page
from api.protocol.shared.wire import WireRequest
from storage.errors import InvalidRequest, UnsupportedParameter
from storage.ids import is_id_of

R = TypeVar("R", bound=WireRequest)
# Where a request's state has the header that names what its job does not enforce.
UNENFORCED_STATE = "unenforced_headers"


def caller_of(request: Request) -> Caller:
    """The caller whom the request was authenticated as."""
    caller = request.scope["state"]["caller"]
    assert isinstance(caller, Caller)
    return caller


def note_replay(request: Request, is_replay: bool) -> None:
    """Mark the response, whatever it will be, as an idempotent replay or not."""
    request.scope["state"]["is_replay"] = is_replay


def note_unenforced(request: Request, keywords: tuple[str, ...]) -> None:
    """Name schema keywords that the job does not enforce in a header of the response, whatever it will be."""
    if keywords:
        request.scope["state"][UNENFORCED_STATE] = [(b"tokenpost-unenforced", ", ".join(keywords).encode())]


async def body_of(request: Request) -> bytes:
    """The whole body; raises as `RequestBodies.read`."""
    return await _bodies_of(request).read(request)


async def parse_body(request: Request, kind: type[R], body: bytes) -> R:
    """The request of that kind that the body holds; raises as its `parse`."""
    return await _bodies_of(request).parse(kind, body)


def _bodies_of(request: Request) -> RequestBodies:
    bodies = request.scope["app"].state.bodies
    assert isinstance(bodies, RequestBodies)
    return bodies


class Query:
    """Query parameters of a request: unknown names and repeated names are refused."""

    def __init__(self, request: Request, *known: str, ignores_unknown: bool = False) -> None:
        """Raises UnsupportedParameter for a name that is not among `known`; `x[]` and `x[key]` count as `x`.

        ignores_unknown: for GETs that OpenAI answers, since it ignores unknown parameters and clients send some
        """
        self.pairs: dict[str, str] = {}
        self._all: list[tuple[str, str]] = []
        if not request.scope["query_string"]:
            return
        for name, value in request.query_params.multi_items():
            if name == VERSION:
                continue  # every route takes it; the middleware has checked it
            shown = name[:100]
            if name.partition("[")[0] not in known:
                if ignores_unknown:
                    continue
                raise UnsupportedParameter(f"Unknown query parameter: '{shown}'.", param=shown)
            if name in self.pairs and not name.endswith("[]"):
                raise InvalidRequest(f"Query parameter '{shown}' is given twice.", param=shown)
            self.pairs[name] = value
            self._all.append((name, value))

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
        """An integer within limits."""
        value = self.pairs.get(name)
        if value is None:
            return default
        is_number = value.isascii() and value.removeprefix("-").isdigit() and len(value) < 20
        if not is_number or not low <= int(value) <= high:
            raise InvalidRequest(f"Invalid '{name}': it must be a whole number from {low} to {high}.", param=name)
        return int(value)

    def get_list(self, name: str) -> list[str]:
        """The values of `name` and `name[]`, in order, without empty ones."""
        return [value for key, value in self._all if value and key.partition("[")[0] == name]

    def get_choice(self, name: str, allowed: Sequence[str]) -> str | None:
        """One of the allowed values; None where it is absent."""
        value = self.pairs.get(name)
        if value is not None and value not in allowed:
            raise InvalidRequest(f"Invalid '{name}': it must be one of {', '.join(allowed)}.", param=name)
        return value

    def get_page(
        self,
        *,
        order: Literal["asc", "desc"],
        default_limit: int = 20,
        max_limit: int = 100,
        id_prefix: str | None = None,
    ) -> Page:
        """The requested page of a list: `limit`, `after` and `order`, with `order` as the default.

        id_prefix: of the ids of a list in their order. There the item of the cursor may be gone, so it is not looked
                   for: any text would stand for some place
        """
        wanted = self.pairs.get("order", order)
        if wanted not in ("asc", "desc"):
            raise InvalidRequest("Invalid 'order': it must be asc or desc.", param="order")
        after = self.get_text("after")
        if after is not None and id_prefix is not None and not is_id_of(after, id_prefix):
            raise InvalidRequest(f"Invalid 'after': it must be an id that begins with '{id_prefix}'.", param="after")
        return Page(
            limit=self.get_int("limit", default=default_limit, low=1, high=max_limit),
            after=after,
            is_newest_first=wanted == "desc",
        )

    def get_pairs(self, name: str) -> dict[str, str]:
        """The values of `name[key]=value` by key."""
        found = {}
        for full_name, value in self.pairs.items():
            head, bracket, key = full_name.partition("[")
            if head == name:
                if not bracket or not key.endswith("]"):
                    raise InvalidRequest(f"Invalid '{name}': write it as {name}[key]=value.", param=name)
                found[key.removesuffix("]")] = value
        return found


def no_query(request: Request) -> None:
    """Raise UnsupportedParameter for any query parameter."""
    Query(request)
