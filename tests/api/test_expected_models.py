"""Models that `tokenpost up` was asked to serve: listed, awaited and refused by status before a worker knows them."""

from collections.abc import Callable
from datetime import UTC, datetime

import httpx2
import msgspec
import openai
import pytest

from api.caches.model_availability import without_folders
from api.settings import ApiSettings
from storage.contract import WorkerStatus
from storage.database.connections import Database
from storage.fleet import manifests, workers
from tests.protocol.examples import manifest
from tests.waiting import wait_until

_NEW = workers.NewWorker(worker_id="w2", model="second", pid=1, host="h", device="cpu", dtype="float32", slots=1)


@pytest.fixture
def refresh_s() -> float:
    """How often the API reads the models again by itself."""
    return 0.05


@pytest.fixture
def settings(database_url: str, redis_url: str, refresh_s: float) -> ApiSettings:
    """An API that expects the served model and one more."""
    given = {"database_url": database_url, "redis_url": redis_url, "pepper": "pepper-of-a-test"}
    return ApiSettings(**given, refresh_s=refresh_s, lease_s=60, expected_models=("demo", "second"))


def _is(http: httpx2.Client, status: int) -> Callable[[], bool]:
    return lambda: http.get("/readyz").status_code == status


def _status(http: httpx2.Client) -> dict[str, str]:
    return {one["id"]: one["status"] for one in http.get("/v1/models").json()["data"]}


def test_an_expected_model_is_listed_and_awaited(http: httpx2.Client, client: openai.OpenAI) -> None:
    assert _status(http) == {"demo": "ready", "second": "loading"}
    assert client.models.retrieve("second").owned_by == "tokenpost"

    answer = http.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["models"] == {"demo": "ready", "second": "loading"}
    assert "the model 'second' is loading" in answer.json()["error"]["message"]


def test_readiness_of_one_model(http: httpx2.Client) -> None:
    assert http.get("/readyz?model=demo").json()["models"] == {"demo": "ready"}
    assert http.get("/readyz?model=second").status_code == 503
    unknown = http.get("/readyz?model=third")
    assert unknown.status_code == 503
    assert "'third' is unknown" in unknown.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/async/completions"])
def test_a_call_for_a_loading_model_is_to_be_repeated(http: httpx2.Client, path: str) -> None:
    refused = http.post(path, json={"model": "second", "prompt": "x"})

    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert http.post(path, json={"model": "third", "prompt": "x"}).status_code == 404


@pytest.mark.parametrize("refresh_s", [60.0])
def test_all_are_ready_as_soon_as_each_has_a_worker(http: httpx2.Client, database: Database) -> None:
    with database.begin() as c:
        workers.register(c, _NEW, datetime.now(UTC))
        workers.set_status(c, "w2", WorkerStatus.READY)
        manifests.put_manifest(c, msgspec.structs.replace(manifest(), model="second"), datetime.now(UTC))

    assert http.get("/readyz").status_code == 200
    assert _status(http) == {"demo": "ready", "second": "ready"}


def test_a_model_that_failed_for_good_is_not_awaited(http: httpx2.Client, database: Database) -> None:
    with database.begin() as c:
        workers.put_failure(c, _NEW, "no weights", datetime.now(UTC))

    wait_until(_is(http, 200), 20.0, "readiness")

    ready = http.get("/readyz").json()
    assert ready["models"] == {"demo": "ready", "second": "failed"}
    assert ready["failures"] == {"second": "no weights"}
    reasons = {one["id"]: one["status_reason"] for one in http.get("/v1/models").json()["data"]}
    assert reasons == {"demo": None, "second": "no weights"}
    one = http.get("/v1/models/second").json()
    assert (one["status"], one["status_reason"]) == ("failed", "no weights")


@pytest.mark.parametrize("background", [False, True])
def test_a_call_for_a_failed_model_says_why_and_is_not_to_be_repeated(
    http: httpx2.Client, database: Database, background: bool
) -> None:
    with database.begin() as c:
        workers.put_failure(c, _NEW, "no weights", datetime.now(UTC))
    wait_until(_is(http, 200), 20.0, "readiness")

    refused = http.post("/v1/responses", json={"model": "second", "input": "x", "background": background})

    assert refused.status_code == 503
    error = refused.json()["error"]
    assert (error["code"], error["message"]) == (
        "model_unavailable",
        "The model 'second' could not be loaded: no weights",
    )
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers
    alone = http.get("/readyz?model=second")
    assert alone.status_code == 503
    assert "the model 'second' is failed (no weights)" in alone.json()["error"]["message"]


def test_a_served_model_that_fails_to_load_again_is_failed_with_its_reason(
    http: httpx2.Client, database: Database
) -> None:
    with database.begin() as c:
        manifests.put_manifest(c, msgspec.structs.replace(manifest(), model="second"), datetime.now(UTC))
        workers.put_failure(c, _NEW, "no memory", datetime.now(UTC))
    wait_until(lambda: _status(http).get("second") == "failed", 20.0, "the failure")

    refused = http.post("/v1/responses", json={"model": "second", "input": "x"})

    assert refused.status_code == 503
    assert "no memory" in refused.json()["error"]["message"]
    assert http.post("/v1/responses", json={"model": "second", "input": "x", "background": True}).status_code == 200


def test_a_model_that_nobody_expects_and_that_just_failed_is_listed(http: httpx2.Client, database: Database) -> None:
    new = msgspec.structs.replace(_NEW, model="third")
    with database.begin() as c:
        workers.put_failure(c, new, "no weights", datetime.now(UTC))

    wait_until(lambda: _status(http).get("third") == "failed", 20.0, "the failure")


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        (
            "There is no config.json in /home/anna/models/x: give a folder",
            "There is no config.json in x: give a folder",
        ),
        ("No such file: '/home/anna/my models/x.gguf'", "No such file: 'x.gguf'"),
        ("~/models/x holds no weights", "x holds no weights"),
        ("Qwen/Qwen3-0.6B could not be read (https://models.example/a/b answered 404)",) * 2,
        ("tensors 3/4 of blk.0", "tensors 3/4 of blk.0"),
    ],
)
def test_a_reason_names_no_folder_of_the_worker(reason: str, shown: str) -> None:
    assert without_folders(reason) == shown


def test_a_new_attempt_to_load_replaces_the_failure(http: httpx2.Client, database: Database) -> None:
    with database.begin() as c:
        workers.put_failure(c, _NEW, "no weights", datetime.now(UTC))
    wait_until(_is(http, 200), 20.0, "readiness")

    with database.begin() as c:
        workers.register(c, _NEW, datetime.now(UTC))

    wait_until(_is(http, 503), 20.0, "the wait for the new attempt")
    assert http.get("/readyz").json()["models"]["second"] == "loading"
