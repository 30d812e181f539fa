"""Makes the dumps of databases of `acaa713` for `tests/api/test_old_databases.py`, with that version's own code.

In a checkout of acaa713, with its environment:

    PYTHONPATH=. python <this file> <folder for sqlite.sql, postgres.sql and expected.json>

It imports modules of that version only, so neither linter nor type checker look at it.
"""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx2
from api.settings import ApiSettings
from storage import keys
from storage.contract import Failure
from storage.database import Database, migrate
from storage.webhook_endpoints import create_endpoint
from tests.api.fake_worker import working
from tests.api.server import serving
from tests.services import running_postgres, running_redis

KEY = "tp-key-of-the-old-database"
HEADERS = {"authorization": f"Bearer {KEY}"}
LATER = {**HEADERS, "prefer": "respond-async"}
WEBHOOK = {"url": "https://127.0.0.1:9/jobs", "secret": "whsec_" + "B" * 32}
TEXT = "Grüße, \u2028 and a tab\t"


def fill(database_url: str, redis_url: str, dump) -> dict[str, object]:
    """What the database holds; `dump` is called while a job runs."""
    migrate(database_url)
    database = Database(database_url)
    now = datetime.now(UTC)
    with database.begin() as c:
        keys.create(c, "alice", pepper=b"pepper", now=now, plaintext=KEY)
        keys.revoke(c, keys.create(c, "bob", pepper=b"pepper", now=now).key_id, now)
        endpoint = {"endpoint_id": "we_old", "owner": "alice", "name": "mine", "url": "https://127.0.0.1:9/all"}
        create_endpoint(c, **endpoint, event_types=[], secret="whsec_" + "A" * 32, now=now)
    settings = ApiSettings(
        database_url=database_url,
        redis_url=redis_url,
        pepper="pepper",
        refresh_s=0.1,
        webhook_allow=("127.0.0.1",),
    )
    with working(database_url, redis_url) as worker, serving(settings) as server:
        with httpx2.Client(base_url=server.url, trust_env=False, timeout=20, headers=HEADERS) as http:
            paths = end_some(http, worker)
            reads = [{"path": path, "body": read(http, path)} for path in paths]
            open_jobs = leave_some_open(http, worker)
            dump()
    database.dispose()
    return {"key": KEY, "reads": reads, **open_jobs}


def end_some(http: httpx2.Client, worker) -> list[str]:
    """Paths of everything that can be read of jobs that have ended."""
    responses, chats, completions = [], [], []

    def respond(**fields: object) -> str:
        answer = http.post("/v1/responses", json={"model": "demo", **fields})
        job_id = answer.headers["x-job-id"]
        responses.append(job_id)
        return job_id

    first = respond(input=TEXT, instructions="Be brief.", metadata={"a": "1"}, temperature=0.5, seed=7)
    parts = [{"role": "user", "content": [{"type": "input_text", "text": "and"}, {"type": "input_text", "text": "on"}]}]
    second = respond(input=parts, previous_response_id=first)
    respond(input="more", previous_response_id=second, stream=True)
    respond(input="other", previous_response_id=first, truncation="auto")
    respond(input="cut", max_output_tokens=2)
    respond(input="p", include=["message.output_text.logprobs"], top_logprobs=2)
    respond(input="hook", background=True, webhook=WEBHOOK)
    worker.failure = Failure(code="numerical_error", message="The model computed no number.")
    respond(input="fail", background=True)
    settle(http, "/v1/responses", responses)
    worker.failure = None
    worker.pauses_at = 4
    cancelled = respond(input="cancel", background=True)
    while http.get(f"/v1/responses/{cancelled}").json()["status"] != "in_progress":
        time.sleep(0.05)
    time.sleep(0.3)
    http.post(f"/v1/responses/{cancelled}/cancel")
    worker.pauses_at = None
    for fields in ({}, {"n": 2, "logprobs": True, "top_logprobs": 1}, {"stream": True}, {"max_tokens": 3}):
        body = {"model": "demo", "messages": [{"role": "user", "content": TEXT}], "store": True, **fields}
        answer = http.post("/v1/chat/completions", json={**body, "metadata": {"n": "x"}})
        chats.append(answer.headers["x-job-id"])
    for fields in ({"prompt": TEXT}, {"prompt": ["a", "b"], "n": 2, "echo": True, "logprobs": 2}):
        answer = http.post("/v1/completions", json={"model": "demo", **fields}, headers=LATER)
        completions.append(answer.headers["x-job-id"])
    settle(http, "/v1/async/completions", completions)
    paths = [f"/v1/responses/{job_id}{rest}" for job_id in responses for rest in ("", "?stream=true", "/input_items")]
    paths += [f"/v1/chat/completions/{job_id}{rest}" for job_id in chats for rest in ("", "?stream=true", "/messages")]
    paths += [f"/v1/completions/{job_id}{rest}" for job_id in completions for rest in ("", "?stream=true")]
    paths += [f"/v1/async/completions/{job_id}" for job_id in completions]
    return [*paths, "/v1/chat/completions?order=desc", "/v1/chat/completions?metadata[n]=x"]


def settle(http: httpx2.Client, path: str, job_ids: list[str]) -> None:
    for job_id in job_ids:
        while http.get(f"{path}/{job_id}").json().get("status") in ("queued", "in_progress"):
            time.sleep(0.05)


def leave_some_open(http: httpx2.Client, worker) -> dict[str, object]:
    worker.pauses_at = 3
    body = {"model": "demo", "background": True, "input": "run"}
    running = http.post("/v1/responses", json=body).headers["x-job-id"]
    while http.get(f"/v1/responses/{running}").json()["status"] != "in_progress":
        time.sleep(0.05)
    worker._stopping.set()
    worker._loop.join()
    worker.beat()
    chat = {"model": "demo", "messages": [{"role": "user", "content": "wait"}]}
    queued = [
        http.post("/v1/responses", json={**body, "input": "wait"}),
        http.post("/v1/responses", json={**body, "webhook": WEBHOOK}),
        http.post("/v1/chat/completions", json=chat, headers={**LATER, "idempotency-key": "old"}),
        http.post("/v1/completions", json={"model": "demo", "prompt": [1, 2, 3]}, headers=LATER),
    ]
    return {"running": running, "queued": [answer.headers["x-job-id"] for answer in queued]}


def read(http: httpx2.Client, path: str) -> str:
    answer = http.get(path)
    assert answer.status_code == 200, (path, answer.text)
    return answer.text


def dump_sqlite(path: Path, target: Path) -> None:
    with sqlite3.connect(path) as connection:
        target.write_text("\n".join(connection.iterdump()) + "\n")


def dump_postgres(folder: Path, name: str, target: Path) -> None:
    command = ["pg_dump", "-h", str(folder), "-U", "postgres", "--inserts", "--no-owner", name]
    dumped = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    lines = (line for line in dumped.stdout.split("\n") if line and not line.startswith(("\\", "--")))
    target.write_text("\n".join(lines) + "\n")


def main() -> None:
    out = Path(sys.argv[1])
    expected: dict[str, object] = {}
    with running_redis() as redis, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "old.db"
        expected["sqlite"] = fill(f"sqlite:///{path}", redis.url, lambda: dump_sqlite(path, out / "sqlite.sql"))
    with running_redis() as redis, running_postgres() as postgres:
        name = postgres.create()
        socket = postgres.socket.parent
        expected["postgres"] = fill(
            postgres.url_of(name), redis.url, lambda: dump_postgres(socket, name, out / "postgres.sql")
        )
    (out / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
