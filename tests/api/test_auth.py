"""Authentication: without keys every local caller is let in, with keys only those who have one."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import httpx2
import openai
import pytest
from sqlalchemy import Connection, event
from structlog.testing import capture_logs

from api.app import create_app
from api.authentication.failed_logins import FailedLogins
from api.authentication.key_lookup import KeyLookup
from api.caches.database_reads import Reader
from api.settings import ApiSettings
from storage.accounts import keys
from storage.database.connections import Database
from storage.errors import SettingInvalid
from storage.jobs import jobs
from tests.api.examples import COMPLETION, RESPONSE
from tests.api.fake_worker import FakeWorker
from tests.api.server import Server, serving
from tests.waiting import wait_until, wait_until_async

PEPPER = b"pepper-of-a-test"
T = TypeVar("T")


def _make_key(database: Database, owner: str, **fields: object) -> keys.NewKey:
    with database.begin() as c:
        return keys.create(c, owner, pepper=PEPPER, now=datetime.now(UTC), **fields)  # type: ignore[arg-type]


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def _start(settings: ApiSettings) -> None:
    async def run() -> None:
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            pass

    asyncio.run(run())


def test_without_keys_any_key_is_the_local_owner(http: httpx2.Client) -> None:
    job_id = RESPONSE.post(http, headers=_bearer("anything")).json()["id"]

    assert http.get(RESPONSE.url_of(job_id)).status_code == 200


def test_without_keys_only_loopback_names_are_answered(http: httpx2.Client) -> None:
    for host in (
        "localhost:8000",
        "LOCALHOST",
        "127.0.0.1",
        "127.8.9.1:80",
        "[::1]:8000",
        "app.localhost",
        "localhost.",
    ):
        assert http.get("/v1/models", headers={"host": host}).status_code == 200, host
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8000",
        "10.0.0.1",
        "2130706433",
    ):
        answer = http.get("/v1/models", headers={"host": host})
        assert answer.status_code == 403, host
        assert answer.json()["error"]["code"] == "host_not_allowed"
        assert answer.headers["x-request-id"]


def test_without_keys_pages_of_other_sites_are_not_answered(http: httpx2.Client) -> None:
    foreign = http.post("/v1/responses", json=RESPONSE.body, headers={"origin": "https://evil.example"})
    opaque = http.post("/v1/responses", json=RESPONSE.body, headers={"origin": "null"})
    own = http.post("/v1/responses", json=RESPONSE.body, headers={"origin": "http://localhost:3000"})

    assert [foreign.status_code, opaque.status_code, own.status_code] == [403, 403, 200]


def test_the_first_key_ends_open_access(http: httpx2.Client, sqlite_database: Database) -> None:
    key = _make_key(sqlite_database, "alice")

    wait_until(lambda: http.get("/v1/models").status_code == 401, 2.0)
    refused = http.get("/v1/models", headers=_bearer("wrong"))
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"
    assert refused.headers["www-authenticate"] == "Bearer"
    assert http.get("/v1/models", headers=_bearer(key.plaintext)).status_code == 200
    assert http.get("/nowhere").status_code == 401
    assert http.get("/healthz", headers={"host": "any.example"}).status_code == 200


def test_the_first_key_is_known_before_the_next_refresh(
    settings: ApiSettings, worker: FakeWorker, sqlite_database: Database
) -> None:
    with (
        serving(settings.model_copy(update={"refresh_s": 600})) as server,
        httpx2.Client(base_url=server.url, trust_env=False, timeout=20) as http,
    ):
        assert RESPONSE.post(http, headers=_bearer("anything")).status_code == 200
        key = _make_key(sqlite_database, "alice")

        job_id = RESPONSE.post(http, headers=_bearer(key.plaintext)).json()["id"]

        with sqlite_database.connect() as c:
            assert jobs.get(c, job_id, "alice").key_id == key.key_id
        # The lookup has shown that keys exist.
        assert http.get("/v1/models").status_code == 401


@pytest.mark.parametrize("pepper", ["pepper-of-a-test", None])
def test_a_wrong_key_is_refused_before_the_next_refresh(
    settings: ApiSettings, worker: FakeWorker, sqlite_database: Database, pepper: str | None
) -> None:
    unrefreshed = {"refresh_s": 600, "pepper": None if pepper is None else settings.pepper}
    with (
        serving(settings.model_copy(update=unrefreshed)) as server,
        httpx2.Client(base_url=server.url, trust_env=False, timeout=20) as http,
    ):
        assert http.get("/v1/models", headers=_bearer("anything")).status_code == 200
        _make_key(sqlite_database, "alice")

        assert http.get("/v1/models", headers=_bearer("wrong")).status_code == 401


async def test_a_refresh_that_began_before_the_first_key_does_not_hide_it(sqlite_database: Database) -> None:
    reads = _SlowReader(sqlite_database, timeout_s=5)
    lookup = KeyLookup(reads, refresh_s=600, patience_s=5)
    await lookup.start()
    reads.gate = asyncio.Event()
    refresh = asyncio.create_task(lookup._load())
    gate = await reads.wait_until_held()
    key = _make_key(sqlite_database, "alice")

    assert await lookup.find(keys.digest_of(key.plaintext, PEPPER)) is not None
    gate.set()
    await refresh

    assert lookup.any_exists
    await lookup.stop()
    reads.close()


def test_a_new_key_is_known_at_once_and_a_revoked_one_forgotten_soon(
    http: httpx2.Client, sqlite_database: Database
) -> None:
    _make_key(sqlite_database, "alice")
    wait_until(lambda: http.get("/v1/models").status_code == 401, 2.0)

    key = _make_key(sqlite_database, "bob")
    assert http.get("/v1/models", headers=_bearer(key.plaintext)).status_code == 200

    with sqlite_database.begin() as c:
        keys.revoke(c, key.key_id, datetime.now(UTC))
    wait_until(lambda: http.get("/v1/models", headers=_bearer(key.plaintext)).status_code == 401, 2.0)


def test_a_key_ends_at_its_time(http: httpx2.Client, sqlite_database: Database) -> None:
    key = _make_key(sqlite_database, "alice", expires_at=datetime.now(UTC) + timedelta(seconds=1))
    assert http.get("/v1/models", headers=_bearer(key.plaintext)).status_code == 200

    wait_until(lambda: http.get("/v1/models", headers=_bearer(key.plaintext)).status_code == 401, 3.0)


def test_the_use_of_a_key_is_noted(http: httpx2.Client, sqlite_database: Database) -> None:
    key = _make_key(sqlite_database, "alice")
    wait_until(lambda: http.get("/v1/models").status_code == 401, 2.0)

    http.get("/v1/models", headers=_bearer(key.plaintext))

    def last_use() -> datetime | None:
        with sqlite_database.connect() as c:
            return keys.list_keys(c)[0].last_used_at

    wait_until(last_use)


def test_owners_do_not_find_each_others_jobs(server: Server, http: httpx2.Client, sqlite_database: Database) -> None:
    alice, bob = (_make_key(sqlite_database, name).plaintext for name in ("alice", "bob"))
    wait_until(lambda: http.get("/v1/models").status_code == 401, 2.0)

    def sdk(key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)

    with sdk(alice) as hers, sdk(bob) as his:
        job_id = hers.responses.create(model="demo", input="Hi").id
        for call in (his.responses.retrieve, his.responses.cancel, his.responses.delete):
            with pytest.raises(openai.NotFoundError):
                call(job_id)
        with pytest.raises(openai.BadRequestError, match="not found") as refusal:
            his.responses.create(model="demo", input="Go on", previous_response_id=job_id)
        assert refusal.value.code == "previous_response_not_found"
        assert hers.responses.retrieve(job_id).id == job_id


def test_the_key_of_the_settings_is_the_first(settings: ApiSettings, worker: FakeWorker) -> None:
    closed = settings.model_copy(update={"api_key": _secret("tp-first-of-tests"), "host": "0.0.0.0"})
    for _ in range(2):  # the second start finds the key that the first one made
        with serving(closed) as server, httpx2.Client(base_url=server.url, trust_env=False) as http:
            assert COMPLETION.post(http).status_code == 401
            assert COMPLETION.post(http, headers=_bearer("tp-first-of-tests")).status_code == 200
            assert (
                http.get("/v1/models", headers=_bearer("tp-first-of-tests") | {"host": "any.example"}).status_code
                == 200
            )


def test_a_key_can_be_demanded_before_there_is_one(settings: ApiSettings, worker: FakeWorker) -> None:
    with (
        serving(settings.model_copy(update={"api_key_required": True})) as server,
        httpx2.Client(base_url=server.url, trust_env=False) as http,
    ):
        assert http.get("/v1/models").status_code == 401
        assert http.get("/v1/models", headers=_bearer("any")).status_code == 401


def test_an_address_that_others_reach_needs_a_key(settings: ApiSettings) -> None:
    with pytest.raises(SettingInvalid, match="TOKENPOST_API_KEY"):
        _start(settings.model_copy(update={"host": "0.0.0.0"}))


def test_a_first_key_needs_a_pepper(settings: ApiSettings) -> None:
    with pytest.raises(SettingInvalid, match="TOKENPOST_PEPPER"):
        _start(settings.model_copy(update={"api_key": _secret("tp-first-of-tests"), "pepper": None}))


def _secret(text: str):  # type: ignore[no-untyped-def]  # SecretStr
    return ApiSettings(database_url="sqlite:////x", redis_url="unix:///x", api_key=text).api_key


def test_a_job_knows_the_project_and_the_key_that_made_it(http: httpx2.Client, sqlite_database: Database) -> None:
    key = _make_key(sqlite_database, "alice")
    job_id = RESPONSE.post(http, headers=_bearer(key.plaintext)).json()["id"]

    with sqlite_database.connect() as c:
        job = jobs.get(c, job_id, "alice")
    assert (job.project_id, job.key_id) == ("alice", key.key_id)


def test_a_first_key_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(SettingInvalid, match=r"TOKENPOST_API_KEY: .*16"):
        ApiSettings.read(database_url="sqlite:////x", redis_url="unix:///x", api_key="x" * 15)


@pytest.mark.parametrize(("num_characters", "is_logged"), [(1, True), (15, True), (16, False)])
def test_a_pepper_that_can_be_guessed_is_logged(
    database_url: str, redis_url: str, num_characters: int, is_logged: bool
) -> None:
    settings = ApiSettings.read(database_url=database_url, redis_url=redis_url, pepper="x" * num_characters)

    with capture_logs() as logged:
        _start(settings)

    assert ("pepper_short" in [entry["event"] for entry in logged]) is is_logged


def test_an_empty_pepper_is_refused() -> None:
    with pytest.raises(SettingInvalid, match="TOKENPOST_PEPPER"):
        ApiSettings.read(database_url="sqlite:////x", redis_url="unix:///x", pepper="")


def test_an_empty_secret_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pepper").write_text("\n")
    monkeypatch.setenv("TOKENPOST_PEPPER_FILE", str(tmp_path / "pepper"))

    with pytest.raises(SettingInvalid, match=r"TOKENPOST_PEPPER_FILE: .* is empty"):
        ApiSettings.read()


def test_failed_logins_are_counted_logged_and_throttled_by_address() -> None:
    now = [0.0]
    failed = FailedLogins(clock=lambda: now[0])

    with capture_logs() as logged:
        for _ in range(25):
            failed.note("192.0.2.1")
    assert failed.is_throttled("192.0.2.1")
    assert not failed.is_throttled("192.0.2.2")
    assert [(entry["event"], entry["address"], entry["num_failures"]) for entry in logged] == [
        ("login_failed", "192.0.2.1", 1)
    ]
    assert [failed.begin_delay("192.0.2.1") for _ in range(101)] == [True] * 100 + [False]

    now[0] = 30.0
    assert not failed.is_throttled("192.0.2.1")


def test_addresses_of_failed_logins_are_bounded() -> None:
    failed = FailedLogins(clock=lambda: 0.0)
    with capture_logs():
        for number in range(25_000):
            failed.note(f"address {number}")

    assert failed.total == 25_000
    assert len(failed._by_address) <= 10_000


async def test_unknown_keys_are_looked_up_in_batches_and_not_again_at_once(sqlite_database: Database) -> None:
    known = _make_key(sqlite_database, "alice")
    reads = _CountingReader(sqlite_database, timeout_s=5)
    lookup = KeyLookup(reads, refresh_s=60, patience_s=5)
    await lookup.start()
    num_before = reads.num_queries
    digests = [keys.digest_of(f"unknown {number}", PEPPER) for number in range(400)]

    found = await asyncio.gather(*map(lookup.find, [*digests, keys.digest_of(known.plaintext, PEPPER)]))

    assert [one is None for one in found] == [True] * 400 + [False]
    assert reads.num_queries - num_before <= 2
    assert all(map(lookup.is_cached_as_unknown, digests))
    cached = lookup.find_cached(keys.digest_of(known.plaintext, PEPPER))
    assert cached is not None
    assert cached.key_id == known.key_id
    await lookup.stop()
    reads.close()


async def test_a_thousand_keys_are_not_read_each_time(sqlite_database: Database) -> None:
    with sqlite_database.begin() as c:
        for number in range(1000):
            keys.create(c, f"owner {number}", pepper=PEPPER, now=datetime.now(UTC))
    rows: list[int] = []
    event.listen(sqlite_database._engine, "after_cursor_execute", lambda *arguments: rows.append(arguments[2]))
    reads = Reader(sqlite_database, timeout_s=5)
    lookup = KeyLookup(reads, refresh_s=60, patience_s=5)

    await lookup.start()

    assert lookup.any_exists
    assert not any("key.digest" in str(statement) for statement in rows)
    await lookup.stop()
    reads.close()


class _CountingReader(Reader):
    num_queries = 0

    async def ask(self, query: Callable[[Connection], T]) -> T:
        self.num_queries += 1
        return await super().ask(query)


class _SlowReader(Reader):
    """Holds back what the next query has read until its gate opens."""

    gate: asyncio.Event | None = None
    _held: asyncio.Event | None = None

    async def ask(self, query: Callable[[Connection], T]) -> T:
        found = await super().ask(query)
        gate, self.gate = self.gate, None
        if gate is not None:
            self._held = gate
            await gate.wait()
        return found

    async def wait_until_held(self) -> asyncio.Event:
        """The gate, once the query has read its rows."""
        await wait_until_async(lambda: self._held is not None)
        assert self._held is not None
        return self._held
