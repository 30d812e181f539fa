"""`/v1/files`: upload, list, read, download and delete, with the unmodified SDK and without."""

from collections.abc import Iterator
from datetime import UTC, datetime

import httpx2
import openai
import pytest

from api.settings import ApiSettings
from storage.accounts import keys
from storage.database.connections import Database
from storage.files import stored_files
from storage.files.stored_files import CHUNK_BYTES
from tests.api.fake_worker import FakeWorker
from tests.api.server import PEPPER, Server, serving
from tests.plain_http import http_client

PATH = "/v1/files"
LINES = b'{"custom_id": "1", "body": {"text": "\xe2\x80\xa8\\r\\n--"}}\r\n' * 60_000


def _upload(
    http: httpx2.Client, content: bytes = b"{}", *, filename: str = "a.jsonl", **fields: str
) -> httpx2.Response:
    """The answer to an upload of the purpose `batch` unless the fields say another."""
    return http.post(PATH, data={"purpose": "batch", **fields}, files={"file": (filename, content)})


def test_the_sdk_uploads_reads_lists_downloads_and_deletes(client: openai.OpenAI) -> None:
    made = client.files.create(file=("lines.jsonl", LINES), purpose="batch")
    assert (made.bytes, made.filename, made.purpose, made.status) == (len(LINES), "lines.jsonl", "batch", "processed")
    assert made.expires_at == made.created_at + 30 * 86400

    assert client.files.retrieve(made.id) == made
    assert client.files.wait_for_processing(made.id) == made
    assert client.files.content(made.id).read() == LINES
    other = client.files.create(
        file=b"text", purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert (other.filename, other.expires_at) == ("upload", other.created_at + 3600)
    assert [file.id for file in client.files.list(limit=1)] == [other.id, made.id]
    assert [file.id for file in client.files.list(purpose="batch")] == [made.id]

    deleted = client.files.delete(made.id)
    assert (deleted.id, deleted.deleted) == (made.id, True)
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            call(made.id)


@pytest.mark.parametrize("size_bytes", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 5])
def test_content_of_every_size_comes_back(http: httpx2.Client, size_bytes: int) -> None:
    content = (bytes(range(256)) * (size_bytes // 256 + 1))[:size_bytes]

    made = _upload(http, content).json()

    answer = http.get(f"{PATH}/{made['id']}/content", headers={"accept": "application/binary"})
    assert (made["bytes"], answer.headers["content-length"]) == (size_bytes, str(size_bytes))
    assert answer.content == content


def test_a_download_is_nothing_that_a_browser_shows(http: httpx2.Client) -> None:
    made = _upload(http, b"<script>", filename='../x/Grüße "a;b".html').json()
    assert made["filename"] == "Grüße %22a;b%22.html"

    headers = http.get(f"{PATH}/{made['id']}/content").headers

    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-disposition"].startswith('attachment; filename="Gr__e _')
    assert "filename*=UTF-8''Gr%C3%BC%C3%9Fe%20" in headers["content-disposition"]
    assert "sandbox" in headers["content-security-policy"]


def test_parts_may_come_in_any_order(http: httpx2.Client) -> None:
    parts = [
        ("file", ("a.png", b"\x89PNG")),
        ("expires_after[seconds]", (None, b"7200")),
        ("purpose", (None, b"vision")),
        ("expires_after[anchor]", (None, b"created_at")),
    ]

    made = http.post(PATH, files=parts).json()

    assert (made["purpose"], made["expires_at"]) == ("vision", made["created_at"] + 7200)
    assert http.get(f"{PATH}/{made['id']}").json() == made


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": "fine-tune"}, "purpose"),
        ({"purpose": "batch_output"}, "purpose"),
        ({"purpose": "x" * 1000}, "purpose"),
        ({"expires_after[anchor]": "now"}, "expires_after[anchor]"),
        ({"expires_after[anchor]": "created_at"}, "expires_after[seconds]"),
        ({"expires_after[seconds]": "3600"}, "expires_after[anchor]"),
        ({"expires_after[seconds]": "3599", "expires_after[anchor]": "created_at"}, "expires_after[seconds]"),
        ({"expires_after[seconds]": "2592001", "expires_after[anchor]": "created_at"}, "expires_after[seconds]"),
        ({"expires_after[seconds]": "1e4", "expires_after[anchor]": "created_at"}, "expires_after[seconds]"),
        ({"metadata": "x"}, "metadata"),
        ({"file": "not a file"}, "file"),
    ],
)
def test_a_wrong_field_is_named(http: httpx2.Client, fields: dict[str, str], param: str) -> None:
    answer = _upload(http, **fields)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert http.get(PATH).json()["data"] == []


@pytest.mark.parametrize("left_out", ["file", "purpose"])
def test_what_is_missing_is_named(http: httpx2.Client, left_out: str) -> None:
    parts = {"file": ("a", b"x"), "purpose": (None, b"batch")}
    del parts[left_out]

    answer = http.post(PATH, files=parts)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, left_out)


@pytest.mark.parametrize("filename", ["", "..", "a/", "a\x07b", "x" * 256, "invoice\u202egpj.exe"])
def test_a_filename_that_misleads_is_refused(http: httpx2.Client, filename: str) -> None:
    head = f'--boundary1\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'.encode()
    content_type = {"content-type": "multipart/form-data; boundary=boundary1"}

    answer = http.post(PATH, content=head + b"x\r\n--boundary1--\r\n", headers=content_type)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")


def test_a_list_is_paged_and_its_parameters_are_judged(http: httpx2.Client) -> None:
    ids = [_upload(http).json()["id"] for _ in range(3)]

    page = http.get(PATH, params={"limit": 2}).json()
    assert [file["id"] for file in page["data"]] == ids[:0:-1]
    assert (page["has_more"], page["first_id"], page["last_id"]) == (True, ids[2], ids[1])
    page = http.get(PATH, params={"limit": 2, "after": ids[1]}).json()
    assert ([file["id"] for file in page["data"]], page["has_more"]) == ([ids[0]], False)
    assert [file["id"] for file in http.get(PATH, params={"order": "asc"}).json()["data"]] == ids
    for wrong in ({"limit": "0"}, {"limit": "10001"}, {"order": "up"}, {"purpose": "x"}, {"after": "a b"}):
        answer = http.get(PATH, params=wrong)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(wrong)))


def test_a_file_that_a_batch_reads_is_not_deleted(http: httpx2.Client, sqlite_database: Database) -> None:
    made = _upload(http).json()
    with sqlite_database.begin() as c:
        stored_files.hold(c, made["id"], "local", "batch_1", datetime.now(UTC))

    refused = http.delete(f"{PATH}/{made['id']}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "file_in_use")
    assert refused.headers["x-should-retry"] == "false"

    with sqlite_database.begin() as c:
        stored_files.release(c, "batch_1")
    assert http.delete(f"{PATH}/{made['id']}").json() == {"id": made["id"], "object": "file", "deleted": True}


def test_the_largest_sizes_are_settings(settings: ApiSettings, worker: FakeWorker) -> None:
    small = settings.model_copy(update={"max_file_bytes": 100_000, "max_file_bytes_per_owner": 150_000})
    with serving(small) as server, http_client(server.url) as http:
        assert _upload(http, bytes(100_000)).status_code == 200
        too_large = _upload(http, bytes(100_001))
        assert (too_large.status_code, too_large.json()["error"]["code"]) == (413, "file_too_large")
        assert _upload(http, bytes(90_000)).status_code == 200
        full = _upload(http, b"x")
        assert (full.status_code, full.json()["error"]["code"]) == (400, "file_storage_full")


def test_owners_do_not_find_each_others_files(server: Server, sqlite_database: Database) -> None:
    now = datetime.now(UTC)
    with sqlite_database.begin() as c:
        alice, bob = (keys.create(c, owner, pepper=PEPPER, now=now).plaintext for owner in ("alice", "bob"))
    with http_client(server.url) as http:
        assert http.get(PATH, headers={"authorization": f"Bearer {alice}"}).status_code == 200
        http.headers["authorization"] = f"Bearer {alice}"
        made = _upload(http).json()
        path = f"{PATH}/{made['id']}"

        http.headers["authorization"] = f"Bearer {bob}"
        assert http.get(PATH).json()["data"] == []
        unknown = http.get(f"{PATH}/file-unknown")
        for answer in (http.get(path), http.get(f"{path}/content"), http.delete(path)):
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
            assert answer.text.replace(made["id"], "file-unknown") == unknown.text

        http.headers["authorization"] = "Bearer tp-unknown"
        assert _upload(http).status_code == 401


def test_a_form_of_unknown_length_is_taken(http: httpx2.Client) -> None:
    def form() -> Iterator[bytes]:
        yield b'--boundary1\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        yield b'--boundary1\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield from (bytes(30_000) for _ in range(100))
        yield b"\r\n--boundary1--\r\n"

    made = http.post(PATH, content=form(), headers={"content-type": "multipart/form-data; boundary=boundary1"})

    assert (made.status_code, made.json()["bytes"]) == (200, 3_000_000)


def test_the_sdk_reads_why_a_large_file_was_refused_before_it_was_sent(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=("a", bytes(100_000_000)), purpose="fine-tune")
    with pytest.raises(openai.APIStatusError, match="at most 209715200 bytes"):
        client.files.create(file=("a", bytes(220_000_000)), purpose="batch")
