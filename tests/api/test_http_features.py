"""Cross-origin requests, compression of responses, API versions and deprecation."""

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import brotli
import httpx2
import pytest
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Scope

from api.http.api_versions import DEPRECATION_STATE, Deprecation
from api.http.compression import coding_of
from api.http.request_dispatch import Dispatcher
from api.lean_route import LeanRoute
from api.settings import ApiSettings
from storage.errors import SettingInvalid
from tests.api.examples import CALLS, CHAT, RESPONSE, Call
from tests.api.fake_worker import FakeWorker
from tests.api.server import Server, serving

PAGE = "https://app.example"
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, content-type"}


@pytest.fixture
def open_to_page(settings: ApiSettings, worker: FakeWorker) -> Iterator[httpx2.Client]:
    """A keyless API that lets the pages of one origin call."""
    named = settings.model_copy(update={"cors_origins": f"{PAGE} http://other.example:3000"})
    with serving(named) as server, httpx2.Client(base_url=server.url, trust_env=False, timeout=20) as http:
        yield http


def test_a_page_of_a_named_origin_may_call(open_to_page: httpx2.Client) -> None:
    asked = open_to_page.options(RESPONSE.path, headers={"origin": PAGE, **PREFLIGHT})
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == PAGE
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert asked.headers["access-control-allow-headers"] == "authorization, content-type"

    answer = RESPONSE.post(open_to_page, {"origin": PAGE})
    refused = open_to_page.get("/v1/responses/resp_x", headers={"origin": PAGE})
    assert (answer.status_code, refused.status_code) == (200, 404)
    for one in (answer, refused):
        assert one.headers["access-control-allow-origin"] == PAGE
        assert "x-request-id" in one.headers["access-control-expose-headers"]
        assert "origin" in one.headers["vary"]


@pytest.mark.parametrize(
    "origin", ["https://app.example.evil", "http://app.example", "https://app.example:444", "null"]
)
def test_a_page_of_another_origin_may_not(open_to_page: httpx2.Client, origin: str) -> None:
    asked = open_to_page.options(RESPONSE.path, headers={"origin": origin, **PREFLIGHT})
    called = RESPONSE.post(open_to_page, {"origin": origin})

    assert (asked.status_code, called.status_code) == (403, 403)
    assert "access-control-allow-origin" not in {**asked.headers, **called.headers}


def test_without_named_origins_nothing_is_said_of_them(http: httpx2.Client) -> None:
    asked = http.options(RESPONSE.path, headers={"origin": "http://localhost:3000", **PREFLIGHT})
    called = RESPONSE.post(http, {"origin": "http://localhost:3000"})

    assert (asked.status_code, called.status_code) == (405, 200)
    assert asked.headers["allow"] == "GET, POST"
    assert not [name for name in (*asked.headers, *called.headers) if name.startswith("access-control")]


@pytest.mark.parametrize("origins", ["*", "app.example", "https://app.example/", "https://a.example,https://b.example"])
def test_a_setting_that_names_no_origins_stops_the_start(
    settings: ApiSettings, origins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENPOST_CORS_ORIGINS", origins)
    with pytest.raises(SettingInvalid, match="TOKENPOST_CORS_ORIGINS"):
        ApiSettings.read(database_url=settings.database_url, redis_url=settings.redis_url)


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (b"gzip, deflate", "gzip"),
        (b"gzip, deflate, br, zstd", "br"),
        (b"br;q=0.1, gzip;q=1.0", "br"),
        (b"br;q=0, GZIP", "gzip"),
        (b"br;q=0.000,gzip;q=0", None),
        (b"x-gzip", "gzip"),
        (b"identity", None),
        (b"*", None),
        (b"", None),
        (b"\xff,;q", None),
    ],
)
def test_brotli_wins_over_gzip_where_both_are_accepted(accepted: bytes, coding: str | None) -> None:
    assert coding_of(accepted) == coding


def _raw(server: Server, method: str, path: str, accepted: str, body: object = None) -> tuple[httpx2.Headers, bytes]:
    headers = {"accept-encoding": accepted}
    with (
        httpx2.Client(base_url=server.url, trust_env=False) as http,
        http.stream(method, path, json=body, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        return answer.headers, b"".join(answer.iter_raw())


@pytest.mark.parametrize("call", CALLS, ids=["response", "chat", "completion"])
def test_a_json_answer_above_1_kb_is_compressed(server: Server, worker: FakeWorker, call: Call) -> None:
    worker.words = tuple(f"word{number} " for number in range(400))
    body = {**call.body, "max_output_tokens" if call is RESPONSE else "max_tokens": 400}
    unpackers = {"gzip": gzip.decompress, "br": brotli.decompress}

    for coding, unpack in unpackers.items():
        headers, packed = _raw(server, "POST", call.path, coding, body)
        assert headers["content-encoding"] == coding
        assert int(headers["content-length"]) == len(packed)
        assert "accept-encoding" in headers["vary"]
        assert "word399 " in json.dumps(json.loads(unpack(packed)))

    headers, plain = _raw(server, "POST", call.path, "identity", body)
    assert "content-encoding" not in headers
    assert "accept-encoding" in headers["vary"]
    assert "word399 " in plain.decode()


def test_a_large_json_answer_is_compressed_beside_the_event_loop(server: Server, worker: FakeWorker) -> None:
    worker.words = ("x" * 50_000, "y" * 50_000)

    headers, packed = _raw(server, "POST", CHAT.path, "gzip", CHAT.body)

    assert headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(packed))["choices"][0]["message"]["content"] == "".join(worker.words)


def test_small_answers_and_streams_are_not_compressed(server: Server, worker: FakeWorker) -> None:
    headers, body = _raw(server, "GET", "/healthz", "br, gzip")
    assert ("content-encoding" in headers, body) == (False, b'{"status":"ok"}')

    worker.words = ("word ",) * 1000
    headers, body = _raw(server, "POST", CHAT.path, "br, gzip", {**CHAT.body, "stream": True})
    assert "content-encoding" not in headers
    assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("version", ["v1", "2026-12-01"])
def test_a_known_api_version_may_be_asked_for(http: httpx2.Client, version: str) -> None:
    assert http.get("/v1/models", params={"api-version": version}).status_code == 200
    assert RESPONSE.post(http, {"x-api-version": version}).status_code == 200
    assert http.get("/healthz", headers={"x-api-version": version}).status_code == 200


@pytest.mark.parametrize("version", ["v2", "2024-10-21", "", "V1", "x" * 500])
def test_an_unknown_api_version_is_refused_with_the_known_ones(http: httpx2.Client, version: str) -> None:
    for answer in (
        http.get("/v1/models", params={"api-version": version}),
        http.get("/v1/models", headers={"x-api-version": version}),
        http.post("/nowhere", params={"api-version": version}),
    ):
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "invalid_request")
        assert "'v1'" in error["message"]
        assert "'2026-12-01'" in error["message"]


async def test_a_deprecated_route_says_so() -> None:
    router = APIRouter(route_class=LeanRoute)

    @router.get("/old/{name}")
    async def old(request: Request, name: str) -> Response:
        """An old route."""
        assert name == "x"
        return Response(b"{}")

    @router.get("/new")
    async def new(_: Request) -> Response:
        """A new route."""
        return Response(b"{}")

    deprecation = Deprecation(
        since=datetime(2026, 12, 1, tzinfo=UTC),
        sunset=datetime(2027, 6, 30, 23, 59, 59, tzinfo=UTC),
        link="https://tokenpost.example/migrate",
    )
    dispatcher = Dispatcher([router], {("GET", "/old/{name}"): deprecation})

    async def headers_at(path: str) -> list[tuple[bytes, bytes]]:
        scope: Scope = {"type": "http", "method": "GET", "path": path, "headers": [], "state": {}}

        async def send(_: Message) -> None: ...

        async def receive() -> Message:
            raise AssertionError

        await dispatcher(scope, receive, send)
        return list(scope["state"][DEPRECATION_STATE])

    assert await headers_at("/old/x") == [
        (b"deprecation", b"@1796083200"),
        (b"sunset", b"Wed, 30 Jun 2027 23:59:59 GMT"),
        (b"link", b'<https://tokenpost.example/migrate>; rel="deprecation"'),
    ]
    assert await headers_at("/new") == []
