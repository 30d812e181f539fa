"""A file of 200 MB goes up and down in a few MiB of an API process."""

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.size.conftest import MakeDatabase
from tests.size.figures import Figure, Figures
from tests.size.processes import running_api

pytestmark = [pytest.mark.at_size, pytest.mark.timeout(600)]

SIZE_BYTES = 200_000_000
BLOCK = b'{"custom_id": "x", "body": {"input": "a line of a batch"}}\n' * 20_000
MOST_MIB = 24.0
HEAD = (
    b'--boundary1\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--boundary1\r\nContent-Disposition: form-data; name="file"; filename="lines.jsonl"\r\n\r\n'
)
TAIL = b"\r\n--boundary1--\r\n"


def _memory_mib(pid: int, field: str) -> float:
    """Of the process's status: VmRSS now, VmHWM at its highest."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def _form() -> Iterator[bytes]:
    yield HEAD
    for start in range(0, SIZE_BYTES, len(BLOCK)):
        yield BLOCK[: SIZE_BYTES - start]
    yield TAIL


def test_a_large_file_takes_little_memory(make_database: MakeDatabase, redis_server_url: str, figures: Figures) -> None:
    with (
        running_api(make_database(), redis_server_url) as api,
        closing(http.client.HTTPConnection("127.0.0.1", api.port, timeout=120)) as connection,
    ):
        headers = {
            "content-type": "multipart/form-data; boundary=boundary1",
            "content-length": str(len(HEAD) + SIZE_BYTES + len(TAIL)),
        }
        # Sets the highest memory to what is used now.
        Path(f"/proc/{api.pid}/clear_refs").write_text("5")
        before = _memory_mib(api.pid, "VmRSS")
        connection.request("POST", "/v1/files", _form(), headers)
        made = json.loads(connection.getresponse().read())
        up = _memory_mib(api.pid, "VmHWM") - before
        connection.request("GET", f"/v1/files/{made['id']}/content")
        answer, num_bytes = connection.getresponse(), 0
        while data := answer.read(1_000_000):
            num_bytes += len(data)
        down = _memory_mib(api.pid, "VmHWM") - before

    assert (made["bytes"], num_bytes) == (SIZE_BYTES, SIZE_BYTES)
    figures.check(
        Figure(what="memory for an upload of 200 MB", seen=up, most=MOST_MIB, unit="MiB"),
        Figure(what="memory for its download as well", seen=down, most=MOST_MIB, unit="MiB"),
    )
