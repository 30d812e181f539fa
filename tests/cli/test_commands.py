"""The operators' commands, on real rows and a real Redis."""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from redis import Redis

from api.cli.home import Home
from api.cli.state import PlatformState, ProcessState, write_state
from storage.accounts import keys
from storage.broker import event_log
from storage.contract import End, EntryKind, JobStatus, TokenEvent, Usage, WorkerStatus
from storage.database.connections import Database
from storage.errors import SettingInvalid
from storage.fleet import workers
from storage.jobs import jobs
from storage.settings import StorageSettings
from tests.cli.conftest import Run
from tests.storage.examples import RESULT, USAGE, put_job, put_worker


def put_queued(database: Database, **changes: object) -> str:
    """A job that waits."""
    with database.begin() as connection:
        return put_job(connection, **({"created_at": datetime.now(UTC)} | changes))


def put_running(database: Database) -> str:
    """A job that worker w1 runs."""
    job_id = put_queued(database)
    with database.begin() as connection:
        assert jobs.claim(connection, job_id, "w1", datetime.now(UTC))
    return job_id


def put_completed(database: Database) -> str:
    """A job whose result is stored."""
    job_id = put_running(database)
    now = datetime.now(UTC)
    with database.begin() as connection:
        assert jobs.complete(connection, job_id, 1, status=JobStatus.COMPLETED, result=RESULT, usage=USAGE, now=now)
    return job_id


# --- jobs ---


def test_jobs_are_listed_the_newest_first(run: Run, home_database: Database) -> None:
    old, new = put_queued(home_database), put_queued(home_database, owner="bob")

    table, views = run("jobs", "list").out, run("jobs", "list", "--json").json

    assert [view["id"] for view in views] == [new, old]
    assert table.splitlines()[0].split() == ["ID", "STATUS", "MODEL", "OWNER", "AGE", "TOKENS"]
    assert table.splitlines()[1].split()[:4] == [new, "queued", "demo", "bob"]
    assert [view["id"] for view in run("jobs", "list", "--owner", "alice", "--json").json] == [old]
    assert run("jobs", "list", "--status", "failed").out == "There are no such jobs.\n"


def test_a_job_is_shown_without_what_its_owner_wrote(run: Run, home_database: Database) -> None:
    job_id = put_completed(home_database)

    view = run("jobs", "show", job_id, "--json")

    assert view.json["status"] == "completed"
    assert view.json["completion_tokens"] == 3
    assert "messages" not in view.out
    assert "project" not in view.out
    assert f"id                 {job_id}" in run("jobs", "show", job_id).out


def test_an_unknown_job_is_one_line_and_exit_code_1(run: Run) -> None:
    said = run("jobs", "show", "chatcmpl-nope")

    assert said.code == 1
    assert said.err == "tokenpost: there is no job chatcmpl-nope; it may have been erased\n"
    assert said.out == ""


def test_cancelling_a_waiting_job_ends_its_log(run: Run, home_database: Database, redis_client: Redis) -> None:
    job_id = put_queued(home_database)

    said = run("jobs", "cancel", job_id, "--json")

    assert said.json == {"id": job_id, "status": "cancelled", "was": "queued"}
    (entry,) = event_log.read_log(redis_client, job_id)
    assert entry.end is not None
    assert entry.end.status is JobStatus.CANCELLED
    again = run("jobs", "cancel", job_id)
    assert (again.code, again.err) == (1, f"tokenpost: job {job_id} has already ended: cancelled\n")


def test_cancelling_a_running_job_tells_its_worker(run: Run, home_database: Database, redis_client: Redis) -> None:
    job_id = put_running(home_database)
    with redis_client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe(event_log.control_channel("w1"))
        listener.get_message(timeout=1.0)

        assert run("jobs", "cancel", job_id).out == "Cancelled; it was in_progress.\n"

        message = listener.get_message(timeout=2.0)
    assert message is not None
    assert event_log.decode_cancel(message["data"]) == job_id


# --- tail ---


def tokens(seq: int, text: str, choice: int = 0) -> event_log.Row:
    """One step's row of a log."""
    return (
        "",
        1,
        seq,
        EntryKind.TOKENS,
        event_log.encode_tokens([TokenEvent(choice=choice, token_ids=(seq,), text=text)]),
    )


def append(redis: Redis, job_id: str, *rows: event_log.Row) -> None:
    """Write rows to a job's log as a worker does."""
    assert event_log.LogWriter(redis, "w1").append([(job_id, *row[1:]) for row in rows]).fenced == []


def test_a_tail_tells_the_text_from_the_log_and_how_it_ended(
    run: Run, home_database: Database, redis_client: Redis
) -> None:
    job_id = put_running(home_database)
    end = End(status=JobStatus.COMPLETED, usage=Usage(prompt_tokens=4, completion_tokens=2), ended_at=1)
    start = ("", 1, 0, EntryKind.START, b"")
    append(
        redis_client,
        job_id,
        start,
        tokens(1, "Hel"),
        tokens(2, "lo."),
        ("", 1, 3, EntryKind.END, event_log.encode_end(end)),
    )

    said = run("jobs", "tail", job_id)

    assert (said.code, said.out) == (0, "Hello.\n")
    assert said.err == "tokenpost: completed, 4 + 2 tokens\n"
    lines = [json.loads(line) for line in run("jobs", "tail", job_id, "--json").out.splitlines()]
    assert [line["seq"] for line in lines] == [0, 1, 2, 3]


def test_a_tail_of_a_job_whose_log_is_gone_reads_the_row(run: Run, home_database: Database) -> None:
    job_id = put_completed(home_database)

    said = run("jobs", "tail", job_id)

    assert said.out == "Grüße \x00\n\n"
    assert said.code == 0


def test_a_tail_of_a_cancelled_job_exits_with_1(run: Run, home_database: Database) -> None:
    job_id = put_queued(home_database)
    run("jobs", "cancel", job_id)

    assert run("jobs", "tail", job_id).code == 1


# --- keys ---


def test_a_key_is_shown_once_and_stored_hashed(run: Run, home: Home, home_database: Database) -> None:
    said = run("keys", "create", "--owner", "alice", "--expires", "30d", "--json")

    key = said.json["key"]
    assert key.startswith("tp-")
    expires_at = datetime.fromisoformat(said.json["expires_at"])
    assert abs(expires_at - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=1)
    digest = keys.digest_of(key, home.pepper_file.read_text().strip().encode())
    with home_database.connect() as connection:
        row = keys.find_by_digest(connection, digest)
    assert row is not None
    assert row.owner == "alice"
    assert key not in run("keys", "list", "--json").out


def test_a_key_can_be_made_before_the_platform_ever_ran(run: Run, tmp_path: Path) -> None:
    said = run("keys", "create", "--owner", "alice", "--home", str(tmp_path / "new"))

    assert said.code == 0
    assert said.out.startswith("tp-")
    assert "without end" in said.out


def test_a_key_is_revoked_once(run: Run) -> None:
    key_id, last = (run("keys", "create", "--owner", "alice", "--json").json["id"] for _ in range(2))

    assert run("keys", "revoke", key_id).out == "Revoked.\n"
    assert run("keys", "list").out.splitlines()[1].split()[3] == "revoked"
    assert run("keys", "revoke", key_id).code == 1
    assert run("keys", "revoke", last).out == "Revoked. No valid key is left: nobody gets in until one is made.\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--owner", "a", "--expires", "soon"), "tokenpost: 'soon' is not a duration such as 12h, 30d or 2w\n"),
        (("--owner", " "), "tokenpost: an owner needs a name\n"),
    ],
)
def test_a_wrong_key_option_is_one_line(run: Run, arguments: tuple[str, ...], line: str) -> None:
    said = run("keys", "create", *arguments)

    assert said.code != 0
    assert said.err == line


# --- ps, db, doctor ---

ENGINE = {
    "num_running": 3,
    "num_waiting": 1,
    "num_blocks": 640,
    "num_blocks_used": 40,
    "num_blocks_cached": 9,
    "num_prompt_tokens": 400,
    "num_cached_tokens": 100,
    "num_output_tokens": 77,
    "num_preemptions": 2,
    "num_steps": 30,
    "num_step_faults": 0,
}


def test_ps_joins_what_the_supervisor_and_the_workers_say(run: Run, home: Home, home_database: Database) -> None:
    now = datetime.now(UTC)
    with home_database.begin() as connection:
        for worker_id in ("mine", "elsewhere", "silent"):
            put_worker(connection, worker_id, now=now)
        put_worker(connection, "silent", now=now, seen_at=now - timedelta(hours=1))
        workers.set_status(connection, "mine", WorkerStatus.READY)
        workers.beat(connection, "mine", 3, ENGINE)
    processes = [
        ProcessState(role="api", name="api", pid=11, state="waiting", since=time.time()),
        ProcessState(
            role="generation worker",
            name="worker-demo",
            pid=12,
            state="running",
            since=time.time(),
            worker_id="mine",
            model="demo",
        ),
    ]
    state = PlatformState(
        pid=os.getpid(),
        version="1",
        url="http://127.0.0.1:1/v1",
        started_at=time.time() - 120,
        database_url=home.database_url,
        redis_url=home.redis_url,
        processes=processes,
    )

    with home.lock():
        write_state(home, state)
        views = run("ps", "--json").json
        table = run("ps").out

    reported = [(view["role"], view["state"], view["running"]) for view in views]
    assert reported == [
        ("supervisor", "running", None),
        ("api", "waiting", None),
        ("generation worker", "ready", 3),
        ("generation worker", "loading", 0),
    ]
    assert views[3]["host"] == "here"
    assert [view["engine"] for view in views] == [None, None, ENGINE, None]
    assert [line.split() for line in table.splitlines()[-2:]] == [
        ["ENGINE", "PID", "RUNNING", "WAITING", "BLOCKS", "CACHE", "HITS", "PREEMPTED", "TOKENS", "OUT"],
        ["demo", "12", "3", "1", "40/640", "25%", "2", "77"],
    ]
    assert table.splitlines()[1].split() == ["supervisor", "-", str(os.getpid()), "running", "2", "min", "-", "0", "-"]


def test_ps_of_a_home_where_nothing_runs_says_so(run: Run, home: Home) -> None:
    assert run("ps").out == f"Nothing runs on {home.path}.\n"


def test_a_home_without_a_platform_is_reported_in_words(run: Run, tmp_path: Path) -> None:
    said = run("jobs", "list", "--home", str(tmp_path / "nothing"))

    assert said.code == 1
    assert "there is no platform in" in said.err
    assert not (tmp_path / "nothing").exists()


def test_db_upgrade_makes_the_tables(run: Run, tmp_path: Path) -> None:
    arguments = ("--home", str(tmp_path / "new"))

    assert run("db", "upgrade", *arguments).out == "The database is up to date.\n"
    assert run("jobs", "list", *arguments).out == "There are no such jobs.\n"


def test_an_unreachable_redis_is_one_line(run: Run, home_database: Database) -> None:
    said = run("jobs", "cancel", put_running(home_database), "--redis-url", "redis://127.0.0.1:1/0")

    assert said.code == 1
    assert said.err.startswith("tokenpost: Redis does not answer: ")
    assert len(said.err.splitlines()) == 1


def test_a_wrong_setting_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENPOST_DRAIN_GRACE_S", "soon")

    said = run("jobs", "list")

    assert said.code == 1
    assert said.err.startswith("tokenpost: TOKENPOST_DRAIN_GRACE_S: ")


@pytest.mark.parametrize(
    ("arguments", "ending"),
    [
        (
            ("webhooks", "deliveries", "--status", "ded"),
            "'--status': 'ded' is not one of 'pending', 'delivered', 'dead'.",
        ),
        (("up", "--dtype", "foo"), "'TOKENPOST_DTYPE'): 'foo' is not one of 'auto', 'float32', 'bfloat16'."),
    ],
)
def test_a_wrong_option_is_reported_in_plain_words(run: Run, arguments: tuple[str, ...], ending: str) -> None:
    said = run(*arguments)

    assert said.code == 2
    assert said.err.strip().endswith(ending)


def test_a_setting_that_breaks_a_rule_of_ours_is_reported_in_plain_words(
    run: Run, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENPOST_DATABASE_URL", f"sqlite:///{home.path}/tokenpost.db")
    monkeypatch.setenv("TOKENPOST_WEBHOOK_ALLOW", "in-the?house")

    with pytest.raises(SettingInvalid) as refused:
        StorageSettings.read()

    assert refused.value.message.startswith("TOKENPOST_WEBHOOK_ALLOW: in-the?house is neither")
