"""Whatever a client sends, the answer is no 500, and the server lives. On both databases: PostgreSQL minds NUL."""

import json
import random
import socket
from collections.abc import Iterator

import httpx2
import pytest

from tests.api.examples import CALLS, CHAT, RESPONSE
from tests.api.server import Server

POST_PATHS = [
    "/v1/responses",
    "/v1/responses/input_tokens",
    "/v1/responses/resp_x/cancel",
    "/v1/chat/completions",
    "/v1/chat/completions/chatcmpl-x",
    "/v1/completions",
    "/v1/async/completions",
    "/v1/streaming/completions",
    "/v1/streaming/chat",
    "/v1/webhook_endpoints",
    "/v1/webhook_endpoints/we_x",
    "/v1/webhook_endpoints/we_x/rotate_secret",
    "/v1/webhook_endpoints/we_x/test",
    "/v1/webhook_endpoints/we_x/redeliver",
]
ID_PATHS = [
    "/v1/responses/{}",
    "/v1/responses/{}/input_items",
    "/v1/chat/completions/{}",
    "/v1/chat/completions/{}/messages",
    "/v1/completions/{}",
    "/v1/async/completions/{}",
    "/v1/models/{}",
    "/v1/responses/{}/deliveries",
    "/v1/webhook_endpoints/{}",
    "/v1/webhook_endpoints/{}/deliveries",
    "/v1/webhook_deliveries/{}",
]
ODD_TEXTS = [
    "\x00",
    "a\x00b",
    "\x7f",
    "\u2028",
    "é" * 100,
    "'; DROP TABLE job; --",
    "%",
    "../../etc/passwd",
    "x" * 9000,
]
ODD_VALUES = [
    None,
    True,
    0,
    -1,
    1.5,
    10**30,
    "",
    "\x00",
    [],
    [[]],
    {},
    {"a": None},
    ["\x00"],
    [None],
    "x" * 3000,
    2**63,
]
ODD_BODIES = [
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"{",
    b'{"model": "demo", "model": ',
    b"\xff\xfe\x00",
    b"\xef\xbb\xbf{}",
    b'{"model": "demo", "input": "\\ud800"}',
    b'{"model": "demo", "input": "\xed\xa0\x80"}',
    b'{"model": NaN}',
    b'{"model": "demo", "input": "x", "temperature": Infinity}',
    b'{"model": "demo", "prompt": "x", "temperature": 1e999}',
    b'{"model": "demo", "input": ' + b"[" * 900 + b"]" * 900 + b"}",
    b'{"model": "demo", "input": ' + b"[" * 100_000,
    b'{"a":' * 900 + b"1" + b"}" * 900,
    b'{"model": "demo", "messages": [' + b"{}," * 50_000 + b"{}]}",
    b'{"model": "demo", "metadata": {' + b",".join(b'"%d": "x"' % n for n in range(50_000)) + b"}}",
    b'{"model": "demo", "prompt": [' + b"1," * 200_000 + b"1]}",
    b'{"model": "demo", "seed": 1' + b"0" * 5000 + b"}",
    bytes(range(256)),
]


@pytest.fixture
def database_url(each_database_url: str) -> str:
    return each_database_url


def _check(answer: httpx2.Response, what: object) -> None:
    assert answer.status_code < 500, (what, answer.text)
    assert answer.headers["x-request-id"]
    if answer.status_code >= 400:
        assert list(answer.json()["error"]) == ["message", "type", "param", "code"], what


def test_odd_bodies_are_refused(http: httpx2.Client) -> None:
    for path in POST_PATHS:
        for body in ODD_BODIES:
            answer = http.post(path, content=body, headers={"content-type": "application/json"})
            _check(answer, (path, body[:60]))
            assert answer.status_code >= 400


def test_odd_fields_are_refused_or_taken_well(http: httpx2.Client) -> None:
    chance = random.Random(7)
    names = [
        *RESPONSE.body,
        *CHAT.body,
        "prompt",
        "metadata",
        "stop",
        "store",
        "stream_options",
        "previous_response_id",
    ]
    names += ["n", "seed", "max_tokens", "max_output_tokens", "instructions", "text", "user", "truncation", "tools"]
    names += ["webhook"]
    for _ in range(250):
        call = chance.choice(CALLS)
        fields = {chance.choice(names): chance.choice(ODD_VALUES) for _ in range(chance.randint(1, 2))}
        _check(call.post(http, **fields), fields)


def test_odd_ids_and_queries_are_not_found_or_refused(http: httpx2.Client) -> None:
    for text in ODD_TEXTS:
        quoted = httpx2.URL("http://x", params={"q": text}).query[2:].decode().replace("+", "%20")
        for path in ID_PATHS:
            _check(http.get(path.format(quoted)), (path, text))
        _check(http.delete(f"/v1/responses/{quoted}"), text)
        _check(http.post(f"/v1/responses/{quoted}/cancel"), text)
        for query in ("model", "after", "metadata[a]", "order", "limit", "metadata[" + text[:50] + "]", text[:50]):
            _check(http.get("/v1/chat/completions", params={query: text}), (query, text))
            _check(http.get("/v1/webhook_endpoints", params={query: text}), (query, text))
        answer = RESPONSE.post(http, previous_response_id=text, metadata={"a": text[:500]}, model="demo")
        _check(answer, text)
    for raw in ("%00", "%ff%fe", "%c0%80", "a%2fb", "%ed%a0%80", "%"):
        for path in ID_PATHS:
            _check(http.get(path.format(raw)), (path, raw))
        _check(http.get(f"/v1/chat/completions?after={raw}&metadata[{raw}]={raw}"), raw)


def test_odd_headers_are_refused_or_passed_over(http: httpx2.Client) -> None:
    data = json.dumps(RESPONSE.body).encode()
    for name in ("authorization", "prefer", "x-request-id", "content-type", "accept", "content-encoding", "origin"):
        for value in (b"", b"\xff\xfe", b"Bearer", b"wait=", b"wait=1e9", b"wait=99999999999", b";;,=", b"x" * 8000):
            headers = {b"content-type": b"application/json", name.encode(): value}
            _check(http.post("/v1/responses", content=data, headers=headers), (name, value))


def test_bytes_that_are_no_http_do_no_harm(server: Server, http: httpx2.Client) -> None:
    for data in _no_http():
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(65536)
            except OSError:
                answer = b""
        assert not answer.startswith(b"HTTP/1.1 500"), data[:80]
    assert RESPONSE.post(http).status_code == 200


def _no_http() -> Iterator[bytes]:
    yield b"\x00\x01\x02\r\n\r\n"
    yield b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n"
    yield b"GET /v1/models HTTP/1.1\r\n\r\n"
    yield b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n"
    yield b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{}"
    yield b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n{}"
    yield b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
    yield b"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{"
    yield b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 200_000 + b"\r\n\r\n"
    yield b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n"
    chance = random.Random(11)
    for _ in range(20):
        yield chance.randbytes(chance.randint(1, 500)) + b"\r\n\r\n"
