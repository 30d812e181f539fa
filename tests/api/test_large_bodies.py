"""Large request bodies: bounds on the number of values, compressed bodies, and parsing beside the event loop."""

import gzip
import json
import random
import zlib

import httpx2
import pytest

from api.protocol.bodies import body_limits
from api.protocol.bodies.body_limits import MAX_OBJECTS, MAX_STRINGS, MAX_VALUES, refuse_too_many_values
from api.protocol.bodies.large_json import decode_large
from storage.errors import InvalidRequest
from tests.api.examples import CHAT, COMPLETION, RESPONSE

MESSAGE = b'{"role": "user", "content": "x"}'


def _chat(inner: bytes) -> bytes:
    return b'{"model": "demo", "messages": [' + inner + b"]}"


@pytest.mark.parametrize(
    ("body", "noun"),
    [
        (_chat(b",".join([MESSAGE] * 250_000)), "objects"),
        (_chat(b'{"role": "user", "content": [' + b'{"type": "text", "text": "a"},' * 200_000 + b"{}]}"), "objects"),
        (b'{"model": "demo", "prompt": [' + b"1," * 1_000_000 + b"1]}", "values"),
        (b'{"model": "demo", "stop": [' + b'"a",' * 500_000 + b'"a"]}', "strings"),
        (b'{"model": "demo", "metadata": ' + b"[" * 2_000_000, "values"),
        (b'{"model": "demo", "a\\"b": ["\\\\", ' + MESSAGE + (b"," + MESSAGE) * 100_000 + b"]}", "objects"),
    ],
    ids=["messages", "parts", "token ids", "strings", "nesting", "behind escapes"],
)
def test_a_body_of_too_many_values_is_refused_before_it_is_decoded(http: httpx2.Client, body: bytes, noun: str) -> None:
    answer = http.post(CHAT.path, content=body, headers={"content-type": "application/json"})

    assert answer.status_code == 400
    assert f"JSON {noun}." in answer.json()["error"]["message"]


def test_structure_inside_strings_does_not_count(http: httpx2.Client) -> None:
    text = '{"a": [1, 2], "b": "\\"}"}, ' * 100_000
    for body in (RESPONSE.body | {"input": text}, RESPONSE.body | {"input": "\\" * 10_001 + '"' + "{" * 100_000}):
        answer = http.post(RESPONSE.path, json=body)
        assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_counts_agree_with_a_decoder_whatever_the_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(5)
    texts = ["", "\\", '"', "\\\\\\", "{[,", "é\u2028", 'a"b\\"c', "x" * 50]

    def value(depth: int) -> object:
        kinds = [lambda: chance.choice(texts), lambda: chance.randint(0, 99), lambda: None]
        if depth:
            kinds += [
                lambda: [value(depth - 1) for _ in range(chance.randint(0, 4))],
                lambda: {chance.choice(texts) + str(key): value(depth - 1) for key in range(chance.randint(0, 4))},
            ]
        return chance.choice(kinds)()

    def num_objects(of: object) -> int:
        if isinstance(of, dict):
            return 1 + sum(map(num_objects, of.values()))
        return sum(map(num_objects, of)) if isinstance(of, list) else 0

    for _ in range(300):
        document = {"a": [value(4) for _ in range(5)]}
        body = json.dumps(document, ensure_ascii=chance.random() < 0.5).encode()
        slice_bytes = chance.randint(1, 40)
        monkeypatch.setattr(body_limits, "MAX_OBJECTS", num_objects(document))
        refuse_too_many_values(body, slice_bytes)
        monkeypatch.setattr(body_limits, "MAX_OBJECTS", num_objects(document) - 1)
        with pytest.raises(InvalidRequest):
            refuse_too_many_values(body, slice_bytes)


@pytest.mark.parametrize("is_ascii", [True, False])
def test_long_strings_are_decoded_as_a_decoder_does_whatever_the_slices(is_ascii: bool) -> None:
    chance = random.Random(11)
    pieces = ["a", "é", "\\", '"', "\n", "\U0001f600", "\ud7ff", "\x00", "word ", "\\u00e4", "\\\\", "{[,", "\u2028"]

    def text() -> str:
        kinds = chance.sample(pieces, chance.randint(1, 4))
        return "".join(chance.choices(kinds, k=chance.choice([3, 300, 3000])))

    for _ in range(300):
        document = {text(): text(), "messages": [{"content": text()}, [text(), 1, None, True], text()]}
        body = json.dumps(document, ensure_ascii=is_ascii).encode()
        assert decode_large(body, chance.randint(300, 900)) == document


@pytest.mark.parametrize(
    ("end", "fault"),
    [(b"\\ud800", "hex escape"), (b"\x01", "control character"), (b"\xff", "unicode"), (b"\\q", "escape")],
    ids=["lone surrogate", "control character", "no UTF-8", "unknown escape"],
)
def test_a_fault_inside_a_long_string_is_found(end: bytes, fault: str) -> None:
    for place in (100, 5000, 9900):
        text = b"x" * place + end + b"x" * (10_000 - place)
        with pytest.raises(InvalidRequest, match=fault):
            decode_large(b'{"a": "' + text + b'"}', 500)
    for length in range(9_000, 10_000, 37):
        with pytest.raises(InvalidRequest):
            decode_large(b'{"a": "' + b"x" * length, 500)
    with pytest.raises(InvalidRequest):
        decode_large(b'{"a": "' + b"x" * 10_000 + b'" "b": 1}', 500)


def test_backslashes_in_a_row_have_a_bound() -> None:
    text = "\\" * 32_000 + "x"
    assert decode_large(json.dumps([text * 3]).encode()) == [text * 3]
    for slice_bytes in (700, 64 * 1024):
        with pytest.raises(InvalidRequest, match="backslashes in a row"):
            decode_large(json.dumps(["x" + "\\" * 200_000]).encode(), slice_bytes)


def test_the_bounds_leave_room_for_real_requests() -> None:
    messages = ",".join([MESSAGE.decode()] * 2000)
    refuse_too_many_values(_chat(messages.encode()))
    refuse_too_many_values(b'{"prompt": [' + b"1," * 200_000 + b"1]}")
    assert (MAX_OBJECTS, MAX_STRINGS, MAX_VALUES) == (4096, 32768, 262144)


def test_a_gzip_body_is_read_as_what_it_unpacks_to(http: httpx2.Client) -> None:
    plain = json.dumps(COMPLETION.body).encode()
    two_members = gzip.compress(plain[:10]) + gzip.compress(plain[10:])
    for packed in (gzip.compress(plain), two_members):
        answer = _post_packed(http, packed)
        assert (answer.status_code, answer.json()["object"]) == (200, "text_completion")


def test_a_gzip_body_may_not_unpack_to_more_than_a_plain_one(http: httpx2.Client) -> None:
    answer = _post_packed(http, gzip.compress(b" " * 10_000_001))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")

    fits = json.dumps(COMPLETION.body).encode().ljust(10_000_000)
    assert _post_packed(http, gzip.compress(fits)).status_code == 200


@pytest.mark.parametrize(
    "packed",
    [b"", b"{}", zlib.compress(b"{}"), gzip.compress(b"{}")[:-1], gzip.compress(b"{}") + b"x"],
    ids=["nothing", "plain", "zlib", "cut", "rest"],
)
def test_a_body_that_is_no_gzip_is_refused(http: httpx2.Client, packed: bytes) -> None:
    assert _post_packed(http, packed).status_code == 400


def _post_packed(http: httpx2.Client, packed: bytes) -> httpx2.Response:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    return http.post(COMPLETION.path, content=packed, headers=headers)
