"""Hostile HTTP/1.1: request smuggling, oversized heads, bad framing. Every one is refused, and the server lives."""

import json
import socket

import httpx2
import pytest

from tests.api.examples import RESPONSE
from tests.api.raw_http import GET, POST, code_of, connect, exchange, read_all, read_one, responses
from tests.api.server import Server
from tests.waiting import wait_until

SMUGGLED = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
MALFORMED = {
    "length and encoding": POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "encoding and length": POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two lengths": POST + b"content-length: 2\r\ncontent-length: 60\r\n\r\n{}" + SMUGGLED,
    "the same length twice": POST + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
    "list of lengths": POST + b"content-length: 2, 2\r\n\r\n{}",
    "signed length": POST + b"content-length: +2\r\n\r\n{}",
    "negative length": POST + b"content-length: -1\r\n\r\n{}",
    "hexadecimal length": POST + b"content-length: 0x2\r\n\r\n{}",
    "endless length": POST + b"content-length: 99999999999999999999999\r\n\r\n",
    "space before colon": POST + b"content-length : 2\r\n\r\n{}",
    "encoding twice": POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "hidden encoding": POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "unknown encoding": POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "compressed chunks": POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /healthz HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "obs-fold": GET + b"x: a\r\n b\r\n\r\n",
    "obs-fold in a length": POST + b"content-length: 2\r\n 0\r\n\r\n{}" + SMUGGLED,
    "line feed alone": GET + b"x: a\ny: b\r\n\r\n",
    "carriage return alone": GET + b"x: a\ry: b\r\n\r\n",
    "NUL in a header": GET + b"x: a\x00b\r\n\r\n",
    "control in a header": GET + b"x: a\x01b\r\n\r\n",
    "header without a name": GET + b": a\r\n\r\n",
    "header name with a space": GET + b"x y: a\r\n\r\n",
    "chunk size that is no number": CHUNKED + b"zz\r\n",
    "negative chunk size": CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
    "chunk size with a prefix": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "endless chunk size": CHUNKED + b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "chunk longer than its size": CHUNKED + b"2\r\n{}}\r\n0\r\n\r\n",
    "chunk line without CR": CHUNKED + b"2\n{}\r\n0\r\n\r\n",
    "chunk extension without CR": CHUNKED + b"2;a\nxx\r\n{}\r\n0\r\n\r\n",
    "HTTP/2": b"GET /healthz HTTP/2.0\r\nhost: localhost\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "unknown method": b"FROB /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "space in the path": b"GET /health z HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "byte beyond ASCII in the path": b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
}
BAD_HOSTS = [b"localhost/healthz?", b"a b", b"", b"localhost:x", b"local\xc3\xa4host", b"[::1", b"u@localhost", b"a,b"]


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_gets_one_400_and_no_second_answer(server: Server, name: str) -> None:
    [(status, body)] = exchange(server, MALFORMED[name])

    assert status == 400
    assert code_of(body) == "malformed_request"


def test_a_fault_after_a_good_request_leaves_the_answer_whole(server: Server) -> None:
    [(status, body)] = exchange(server, GET + b"\r\n" + b"GET /healthz HTTP/1.1\r\nx y: a\r\n\r\n")

    assert (status, json.loads(body)) == (200, {"status": "ok"})


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_a_host_that_is_no_host_is_refused(server: Server, host: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: %b\r\n\r\n" % host)
        status, body = read_one(connection)

    assert (status, code_of(body)) == (400, "invalid_request")


@pytest.mark.parametrize("heads", [b"", b"host: localhost\r\nhost: localhost\r\n"])
def test_a_request_has_exactly_one_host(server: Server, heads: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n%b\r\n" % heads)
        status, _ = read_one(connection)

    assert status == 400


@pytest.mark.parametrize("host", [b"localhost", b"localhost:8000", b"127.0.0.1:1", b"[::1]:8000", b"LOCALHOST."])
def test_a_loopback_host_is_accepted(server: Server, host: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: %b\r\n\r\n" % host)
        assert read_one(connection)[0] == 200


@pytest.mark.parametrize(
    "head",
    [
        GET + b"x: " + b"y" * 70_000 + b"\r\n\r\n",
        GET + b"x" * 70_000 + b": y\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
        GET + b"".join(b"x%d: y\r\n" % number for number in range(300)) + b"\r\n",
        GET + b"a:\r\n" * 60_000 + b"\r\n",
    ],
    ids=["long value", "long name", "long path", "many headers", "very many headers"],
)
def test_a_head_that_is_too_large_is_refused(server: Server, head: bytes) -> None:
    [(status, body)] = exchange(server, head)

    assert (status, code_of(body)) == (431, "headers_too_large")


def test_an_endless_head_in_small_pieces_is_refused(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(GET + b"x: ")
        try:
            for _ in range(1000):
                connection.sendall(b"y" * 1000)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the server has closed already
        wait_until(lambda: server.num_connections == 0)


def test_a_large_body_in_the_same_segment_as_its_head_is_no_large_head(server: Server) -> None:
    body = json.dumps({**RESPONSE.body, "metadata": {"a": "x" * 400}, "input": "Hi " * 50_000}).encode()
    with connect(server) as connection:
        head = POST + b"content-length: %d\r\n\r\n" % len(body)
        connection.sendall(head[:-2])
        connection.sendall(head[-2:] + body)
        status, answer = read_one(connection)

    assert (status, code_of(answer)) == (400, "context_length_exceeded")


def test_trailers_reach_no_application_and_have_a_limit(server: Server) -> None:
    body = json.dumps(RESPONSE.body).encode()
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    with connect(server) as connection:
        connection.sendall(CHUNKED + chunk + b"x-request-id: forged\r\nprefer: nonsense\r\n\r\n")
        connection.settimeout(10)
        status, _ = read_one(connection)
        assert status == 200

    [(status, answer)] = exchange(server, CHUNKED + chunk + b"x: " + b"y" * 3_000_000)
    assert (status, code_of(answer)) == (400, "malformed_request")


def test_tiny_chunks_are_refused_when_they_are_mostly_overhead(server: Server) -> None:
    [(status, answer)] = exchange(server, CHUNKED + b"1\r\n \r\n" * 100_000)

    assert (status, code_of(answer)) == (400, "malformed_request")


def test_pipelined_requests_are_answered_in_order_up_to_a_limit(server: Server) -> None:
    paths = [b"/healthz", b"/v1/models", b"/nowhere", b"/healthz"]
    requests = b"".join(b"GET %b HTTP/1.1\r\nhost: localhost\r\n\r\n" % path for path in paths)
    last = GET + b"connection: close\r\n\r\n"
    assert [status for status, _ in exchange(server, requests + last)] == [200, 200, 404, 200, 200]

    many = exchange(server, (GET + b"\r\n") * 5000)
    assert 1 <= len(many) < 100
    assert {status for status, _ in many} == {200}


def test_data_after_a_last_request_is_not_answered(server: Server) -> None:
    assert len(exchange(server, GET + b"connection: close\r\n\r\n" + SMUGGLED)) == 1


def test_an_upgrade_is_declined_and_the_connection_stays(server: Server) -> None:
    upgrade = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    body = json.dumps(RESPONSE.body).encode()
    with connect(server) as connection:
        connection.sendall(GET + upgrade + b"\r\n")
        assert read_one(connection)[0] == 200
        connection.sendall(POST + upgrade + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        assert read_one(connection)[0] == 200
        connection.sendall(GET + b"\r\n")
        assert read_one(connection)[0] == 200


def test_a_declared_body_beyond_the_limit_is_refused_before_it_is_sent(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(POST + b"content-length: 107374182400\r\n\r\n")
        connection.settimeout(2)
        status, body = read_one(connection)

    assert (status, code_of(body)) == (413, "request_too_large")


def test_a_client_that_writes_a_too_large_body_first_can_read_why(server: Server) -> None:
    size = server.app.state.jobs.settings.max_body_bytes + 3_000_000
    with connect(server) as connection:
        connection.sendall(POST + b"content-length: %d\r\n\r\n" % size)
        for _ in range(0, size, 100_000):
            connection.sendall(b"x" * min(100_000, size))
        assert read_one(connection)[0] == 413
        connection.sendall(GET + b"connection: close\r\n\r\n")
        assert responses(read_all(connection))[-1][0] == 200


def test_request_ids_of_clients_are_kept_only_in_safe_characters(http: httpx2.Client) -> None:
    def answered(sent: str) -> str:
        return str(http.get("/healthz", headers={"x-request-id": sent}).headers["x-request-id"])

    assert answered("My.id_1-2") == "My.id_1-2"
    assert answered("x" * 128) == "x" * 128
    for sent in ("../../x", "a/b", "a:b", "a b", "x" * 129, "", "a\tb", "<script>"):
        assert answered(sent).startswith("req_")


def test_the_server_lives_on(server: Server, http: httpx2.Client) -> None:
    for data in MALFORMED.values():
        exchange(server, data)

    assert RESPONSE.post(http).status_code == 200
