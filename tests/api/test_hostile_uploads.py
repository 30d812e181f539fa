"""Uploads that no good client sends: each is refused by name, nothing of it is kept, and the server lives on."""

import contextlib
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx2
import pytest
from sqlalchemy import func, select

from api.settings import ApiSettings
from storage.database.connections import Database
from storage.database.table_definitions import table_of
from storage.files import stored_files
from storage.files.stored_files import CHUNK_BYTES
from storage.files.tables import File
from tests.api.fake_worker import FakeWorker
from tests.api.raw_http import code_of, connect, read_all, read_one, responses
from tests.api.server import Server, serving
from tests.plain_http import http_client
from tests.waiting import wait_until

PATH = "/v1/files"
FORM = {"content-type": "multipart/form-data; boundary=boundary1"}
PURPOSE = b'--boundary1\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
FILE = b'--boundary1\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
END = b"\r\n--boundary1--\r\n"
HEAD = b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=boundary1\r\n"
GIGABYTE = 10**9


def _num_rows(database: Database, *, is_deleted: bool) -> int:
    table = table_of(File)
    condition = table.c.deleted_at.is_not(None) if is_deleted else table.c.deleted_at.is_(None)
    with database.connect() as c:
        return c.execute(select(func.count()).select_from(table).where(condition)).scalar_one()


@pytest.mark.parametrize(
    "body",
    [
        bytes(3_000_000),
        b"\r\n" * 1_000_000,
        b"-" * 1_000_000,
        PURPOSE.replace(b"boundary1", b"boundary2") + FILE + b"x" + END,
        PURPOSE + PURPOSE,
        PURPOSE + b"--boundary1\r\n\r\nx" + END,
        PURPOSE + b"--boundary1\r\nContent-Disposition: attachment\r\n\r\nx" + END,
        PURPOSE + b'--boundary1\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx' + END,
        PURPOSE + b'--boundary1\r\nContent-Disposition: form-data; name="' + b"n" * 500 + b'"\r\n\r\nx' + END,
        b"--boundary1\r\n" + b"a: b\r\n" * 10_000 + b"\r\nx" + END,
        b"--boundary1\r\nx-long: " + b"a" * 100_000 + b"\r\n\r\nx" + END,
        b"--boundary1\r\n" + b"a" * 100_000,
        FILE.replace(b"\r\n\r\n", b"\r\ncontent-transfer-encoding: base64\r\n\r\n") + b"eA==" + END,
        FILE + b"x\r\n" + FILE + b"y" + END,
        (b"--boundary1\r\nContent-Disposition: form-data; name=x\r\n\r\n\r\n") * 50_000 + b"--boundary1--",
        PURPOSE + FILE + b"\r\n--boundary1x" * 200_000 + END,
        PURPOSE + FILE + bytes(3_000_000),
        PURPOSE + FILE + b"x\r\n--boundary1",
        PURPOSE + b"--boundary1--\r\n",
        b"--boundary1--\r\n",
        b"",
    ],
    ids=[
        "zeros",
        "line ends",
        "hyphens",
        "another boundary",
        "a field twice",
        "no name",
        "an attachment",
        "a name in Latin-1",
        "a long name",
        "many headers",
        "a long header",
        "a long header name",
        "a transfer encoding",
        "two files",
        "many parts",
        "lines that begin with the boundary",
        "no end",
        "half an end",
        "no file",
        "no parts",
        "nothing",
    ],
)
def test_a_malformed_form_is_a_400_and_leaves_nothing(
    http: httpx2.Client, sqlite_database: Database, body: bytes
) -> None:
    answer = http.post(PATH, content=body, headers=FORM)

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert http.get(PATH).json()["data"] == []
    wait_until(lambda: _num_rows(sqlite_database, is_deleted=False) == 0)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/json"}, 415),
        ({}, 415),
        ({"content-type": "multipart/mixed; boundary=boundary1"}, 415),
        ({"content-type": "multipart/form-data"}, 400),
        ({"content-type": "multipart/form-data; boundary=a"}, 400),
        ({"content-type": "multipart/form-data; boundary=" + "a" * 71}, 400),
        ({"content-type": 'multipart/form-data; boundary="bound<ary1"'}, 400),
        (FORM | {"content-encoding": "gzip"}, 415),
    ],
)
def test_another_media_type_or_a_bad_boundary_is_refused(
    http: httpx2.Client, headers: dict[str, str], status: int
) -> None:
    assert http.post(PATH, content=PURPOSE + FILE + b"x" + END, headers=headers).status_code == status


def test_near_misses_of_the_boundary_are_content(http: httpx2.Client) -> None:
    content = b"\r\n--boundary1x" * 500 + b"\r\n--boundary" + b"\r" * 100_000 + b"\r\n--boundary1-x\r\n-"

    made = http.post(PATH, content=PURPOSE + FILE + content + END, headers=FORM).json()

    assert http.get(f"{PATH}/{made['id']}/content").content == content


def test_a_form_in_single_bytes_is_read(server: Server) -> None:
    body = PURPOSE + FILE + b"\r\n--boundary1-" + END
    with connect(server) as connection:
        connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body))
        for index in range(len(body)):
            connection.sendall(body[index : index + 1])
        status, answer = read_one(connection)

    assert (status, b'"bytes":14' in answer) == (200, True)


def test_a_gigabyte_is_refused_before_it_is_sent(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(HEAD + b"content-length: %d\r\nexpect: 100-continue\r\n\r\n" % GIGABYTE)
        status, body = read_one(connection)

    assert (status, code_of(body)) == (413, "file_too_large")


def test_a_large_batch_file_is_refused_once_its_purpose_is_known(server: Server, sqlite_database: Database) -> None:
    with connect(server) as connection:
        connection.sendall(HEAD + b"content-length: 300000000\r\n\r\n" + PURPOSE + b"--boundary1\r\n")
        status, body = read_one(connection)

    assert (status, code_of(body)) == (413, "file_too_large")
    assert _num_rows(sqlite_database, is_deleted=False) + _num_rows(sqlite_database, is_deleted=True) == 0


def test_a_file_of_unknown_length_is_cut_at_the_limit(
    settings: ApiSettings, worker: FakeWorker, sqlite_database: Database
) -> None:
    def endless() -> Iterator[bytes]:
        yield FILE
        while True:
            yield bytes(50_000)

    with (
        serving(settings.model_copy(update={"max_file_bytes": 2_000_000})) as server,
        http_client(server.url) as http,
        contextlib.suppress(httpx2.NetworkError),
    ):
        answer = http.post(PATH, content=endless(), headers=FORM)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "file_too_large")
    wait_until(lambda: _num_rows(sqlite_database, is_deleted=True) == 1)


def test_uploads_open_no_other_path(http: httpx2.Client) -> None:
    large = PURPOSE + FILE + bytes(20_000_000) + END

    assert http.post("/v1/responses", content=large, headers=FORM).status_code == 415
    answer = http.post("/v1/responses", content=large, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def _half_sent(server: Server, num_chunks: int) -> socket.socket:
    """A connection that has sent so much of a file, and not its end."""
    connection = connect(server)
    connection.sendall(HEAD + b"content-length: 100000000\r\n\r\n" + PURPOSE + FILE + bytes(num_chunks * CHUNK_BYTES))
    return connection


def test_an_upload_whose_client_leaves_is_given_up_at_once(server: Server, sqlite_database: Database) -> None:
    with _half_sent(server, 3):
        wait_until(lambda: _num_rows(sqlite_database, is_deleted=False) == 1)
        assert _num_rows(sqlite_database, is_deleted=True) == 0

    wait_until(lambda: _num_rows(sqlite_database, is_deleted=True) == 1)


def test_a_silent_upload_is_ended_by_the_deadline(
    settings: ApiSettings, worker: FakeWorker, sqlite_database: Database
) -> None:
    with serving(settings, body_deadline_s=0.7) as server, _half_sent(server, 0) as connection:
        began = time.monotonic()
        status, body = responses(read_all(connection))[0]
        assert (status, code_of(body)) == (408, "request_timeout")
        assert time.monotonic() - began < 10
        wait_until(lambda: _num_rows(sqlite_database, is_deleted=True) == 1)


def test_one_owner_uploads_a_few_files_at_once(server: Server, http: httpx2.Client, sqlite_database: Database) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(_half_sent(server, 0))
        wait_until(lambda: _num_rows(sqlite_database, is_deleted=False) == 8)

        refused = http.post(PATH, content=PURPOSE + FILE + END, headers=FORM)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_transfers")
        assert refused.headers["retry-after"] == "2"

    wait_until(lambda: http.post(PATH, content=PURPOSE + FILE + END, headers=FORM).status_code == 200)


def test_a_file_that_maintenance_gave_up_fails_its_upload(server: Server, sqlite_database: Database) -> None:
    with _half_sent(server, 1) as connection:
        wait_until(lambda: _num_rows(sqlite_database, is_deleted=False) == 1)
        with sqlite_database.begin() as c:
            stored_files.give_up(c, c.execute(select(table_of(File).c.id)).scalar_one(), datetime.now(UTC))
        connection.sendall(bytes(2 * CHUNK_BYTES))
        status, body = read_one(connection)

    assert (status, code_of(body)) == (503, "upload_interrupted")
