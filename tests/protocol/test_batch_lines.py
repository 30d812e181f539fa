"""Lines of batches: how files are split, and how results are written."""

import json
from collections.abc import Iterator

import pytest

from api.protocol.batches.line_splitter import Line, LineSplitter
from api.protocol.batches.result_lines import answered_line, line_of_request, request_id_of, unanswered_line
from api.protocol.kinds import ENDPOINTS, KINDS

_CONTENT = "\ufeff{1}\r\n\n  {2\u2028\u2029\x85\x0b} \n{3}".encode()


def _split(pieces: list[bytes], *, offset: int = 0, number: int = 0) -> Iterator[Line]:
    splitter = LineSplitter(offset=offset, number=number, max_line_bytes=100)
    for piece in pieces:
        yield from splitter.push(piece)
    last = splitter.close()
    if last is not None:
        yield last


@pytest.mark.parametrize("cut", range(len(_CONTENT)))
def test_lines_do_not_depend_on_the_pieces_of_the_file(cut: int) -> None:
    lines = list(_split([_CONTENT[:cut], _CONTENT[cut:]]))

    assert [one.number for one in lines] == [1, 3, 4]
    assert [one.data for one in lines] == [b"{1}", "{2\u2028\u2029\x85\x0b}".encode(), b"{3}"]
    assert all(_CONTENT[one.offset :].startswith(one.data or b"?") for one in lines)


def test_splitting_goes_on_at_any_line() -> None:
    whole = list(_split([_CONTENT]))

    rest = list(_split([_CONTENT[9:]], offset=9, number=2))

    assert rest == whole[1:]


def test_a_long_line_is_reported_before_it_has_ended() -> None:
    splitter = LineSplitter(offset=0, number=0, max_line_bytes=100)

    assert list(splitter.push(b"x" * 100)) == []
    assert [one.data for one in splitter.push(b"x")] == [None]


def test_results_survive_readers_that_split_at_every_separator() -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x1ef\r\n"

    line = answered_line("batch_req_x_1", "id\u2028", 200, {"text": text})

    [read] = line.decode().splitlines()
    assert json.loads(read)["response"]["body"]["text"] == text
    assert json.loads(read)["custom_id"] == "id\u2028"


def test_an_answer_is_never_both() -> None:
    line = json.loads(unanswered_line("batch_req_x_1", "a", "batch_expired", "Too late."))

    assert (line["response"], line["error"]["code"]) == (None, "batch_expired")


def test_ids_of_requests_name_their_line() -> None:
    batch_id = "batch_0123"

    assert line_of_request(request_id_of(batch_id, 17), batch_id) == 17
    for other in ("batch_req_9999_17", "batch_req_0123_", "batch_req_0123_017", "batch_req_0123_x", "17", ""):
        assert line_of_request(other, batch_id) is None


def test_every_kind_of_job_is_an_endpoint_of_batches() -> None:
    assert {spec.kind for spec in ENDPOINTS.values()} == KINDS.keys()
    assert "/v1/chat/completions" in ENDPOINTS
