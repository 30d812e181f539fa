"""`tokenpost batches` on a server that answers as `/v1` does."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.cli.batches.batch_progress import watch
from api.cli.batches.http_api import ApiUnavailable, HttpApi
from tests.cli.batch_server import COUNTS, BatchServer, running_batch_server
from tests.cli.conftest import Run

LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {}}\n'
RUNNING = {"status": "in_progress", "request_counts": {"total": 3, "completed": 1, "failed": 0}}
ENDED = {"status": "completed", "request_counts": COUNTS, "output_file_id": "file-out", "error_file_id": "file-err"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    """The server that the commands call."""
    with running_batch_server() as running:
        running.contents |= {"file-out": b'{"a": 1}\n{"b": 2}\n', "file-err": b'{"c": 3}\n'}
        monkeypatch.setenv("TOKENPOST_URL", running.url)
        yield running


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """A file of requests."""
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + LINE * 1000)
    return path


def test_a_batch_is_created_of_a_file_for_the_endpoint_of_its_first_line(
    run: Run, server: BatchServer, lines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENPOST_API_KEY", "k" * 40)

    said = run("batches", "create", str(lines), "--window", "2h", "--metadata", "topic=fox=red")

    assert (said.code, said.out) == (0, "batch_new\n")
    (headers, _, path, form), (_, _, _, wanted) = server.seen
    assert (path, headers["authorization"]) == ("/v1/files", f"Bearer {'k' * 40}")
    assert form.index(b'name="purpose"') < form.index(b'name="file"; filename="lines.jsonl"')
    assert LINE * 1000 in form
    assert json.loads(wanted) == {
        "input_file_id": "file-in",
        "endpoint": "/v1/chat/completions",
        "completion_window": "2h",
        "metadata": {"topic": "fox=red"},
    }


def test_a_created_batch_is_watched_to_its_end(run: Run, server: BatchServer, lines: Path) -> None:
    server.put_batch("batch_new", ENDED)

    said = run("batches", "create", str(lines), "--endpoint", "/v1/responses", "--watch", "--json")

    assert (said.code, said.json["status"], said.json["request_counts"]) == (0, "completed", COUNTS)
    assert "batch_new: completed, 2 of 3 completed, 1 failed" in said.err


@pytest.mark.parametrize(
    ("content", "arguments", "reason"),
    [
        (b"no json\n", [], "--endpoint names it"),
        (b"", [], "--endpoint names it"),
        (LINE, ["--metadata", "x"], "not KEY=VALUE"),
        (LINE, ["--url", "ftp://x"], "TOKENPOST_URL"),
    ],
)
def test_a_wrong_argument_is_one_line_and_calls_nobody(
    run: Run, server: BatchServer, tmp_path: Path, content: bytes, arguments: list[str], reason: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)

    said = run("batches", "create", str(path), *arguments)

    assert (said.code, said.out, server.seen) == (1, "", [])
    assert reason in said.err


def test_batches_are_listed_and_shown(run: Run, server: BatchServer) -> None:
    errors = {"object": "list", "data": [{"code": "invalid_json_line", "message": "No.", "param": None, "line": 7}]}
    server.put_batch("batch_1", ENDED)
    server.put_batch("batch_2", {"status": "failed", "errors": errors})

    table = run("batches", "list").out.splitlines()
    shown = run("batches", "show", "batch_2").out

    assert table[0].split() == ["ID", "STATUS", "ENDPOINT", "TOTAL", "COMPLETED", "FAILED", "AGE"]
    assert [line.split()[:6] for line in table[1:]] == [
        ["batch_2", "failed", "/v1/responses", "0", "0", "0"],
        ["batch_1", "completed", "/v1/responses", "3", "2", "1"],
    ]
    assert "created_at         2026-12-01 00:00:00 UTC" in shown
    assert shown.splitlines()[-1].split() == ["7", "invalid_json_line", "No."]
    assert run("batches", "show", "batch_1", "--json").json["request_counts"] == COUNTS
    assert run("batches", "cancel", "batch_1").out == "cancelling: 2 of 3 completed, 1 failed\n"


def test_an_unknown_batch_is_the_servers_own_sentence(run: Run, server: BatchServer) -> None:
    for command in ("show", "watch", "cancel", "results"):
        said = run("batches", command, "batch_0")
        assert (said.code, said.out) == (1, "")
        assert "tokenpost: There is no /v1/batches/batch_0" in said.err


def test_results_go_to_stdout_or_to_files(run: Run, server: BatchServer, tmp_path: Path) -> None:
    server.put_batch("batch_1", ENDED)
    output, errors = tmp_path / "out.jsonl", tmp_path / "err.jsonl"
    output.write_text("old")

    said = run("batches", "results", "batch_1")
    assert (said.code, said.out.encode()) == (0, server.contents["file-out"])
    assert "--errors FILE fetches the failed requests" in said.err
    said = run("batches", "results", "batch_1", "--output", str(output), "--errors", str(errors))

    assert (said.code, said.out) == (0, "")
    assert (output.read_bytes(), errors.read_bytes()) == (server.contents["file-out"], server.contents["file-err"])
    assert sorted(path.name for path in tmp_path.glob("*.jsonl*")) == ["err.jsonl", "out.jsonl"]


def test_a_batch_that_runs_has_no_results_yet(run: Run, server: BatchServer) -> None:
    server.put_batch("batch_1", RUNNING)

    said = run("batches", "results", "batch_1")

    assert (said.code, said.out) == (1, "")
    assert "batch_1 has not ended: in_progress, 1 of 3 completed, 0 failed" in said.err


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("failed", 1), ("expired", 1), ("cancelled", 1)])
def test_watch_ends_as_the_batch_does(run: Run, server: BatchServer, status: str, code: int) -> None:
    server.put_batch("batch_1", {**ENDED, "status": status})

    said = run("batches", "watch", "batch_1")

    assert (said.code, said.out) == (code, f"{status}: 2 of 3 completed, 1 failed\n")


def test_a_bar_shows_what_is_done_and_what_failed(
    server: BatchServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    server.put_batch("batch_1", {"status": "validating"}, RUNNING, ENDED)

    with HttpApi(server.url, None) as api:
        watch(api, "batch_1", pause=lambda seconds: None)

    err = capsys.readouterr().err
    assert "3/3" in err
    assert "1 failed" in err


def test_watching_outlives_a_restart_of_the_platform(server: BatchServer) -> None:
    server.put_batch("batch_1", RUNNING, ENDED)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            server.outages = 3

    with HttpApi(f"{server.url}/v1/", None) as api:
        assert watch(api, "batch_1", pause=pause)["status"] == "completed"
    assert len(pauses) == 4


def test_watching_a_platform_that_does_not_come_back_ends(server: BatchServer) -> None:
    server.outages, times = 10**6, iter(range(10**6))

    with HttpApi(server.url, None) as api, pytest.raises(ApiUnavailable, match="the database does not answer"):
        watch(api, "batch_1", pause=lambda seconds: None, clock=lambda: float(next(times)))
    assert 60 <= len(server.seen) <= 130


def test_nobody_at_the_address_is_one_line(run: Run) -> None:
    said = run("batches", "list", "--url", "http://127.0.0.1:9")

    assert (said.code, said.out) == (1, "")
    assert "no platform answers at http://127.0.0.1:9/v1" in said.err
