"""What the platform says afterwards: every row, every job read again, and who wrote which log when."""

import re
import threading
import time
from collections.abc import Collection

import httpx2
import msgspec
from redis.exceptions import RedisError
from sqlalchemy import select

from storage.broker import event_log
from storage.contract import JobStatus, Result
from storage.database.connections import Database
from storage.database.table_definitions import table_of
from storage.jobs import jobs
from storage.jobs.tables import Job, JobResult
from tests.drill.judge import Outcome, Replay, Row, Story
from tests.drill.stage import Stage
from tests.drill.work import KINDS, NUM_TEMPLATES, body_of, read_path, reference_key, text_of, usage_of

_job = table_of(Job)
_result = table_of(JobResult)
_result_decoder = msgspec.msgpack.Decoder(Result)
_READ_LIMIT_S = 60.0

# As whom it watches everything that is published.
_TAP = "witness"


def read_rows(database: Database, name: str, job_ids: Collection[str]) -> dict[str, Row]:
    """The rows of one load: those that carry its name, and those that were accepted."""
    columns = "id", "status", "metadata_", "prompt_tokens", "completion_tokens", "lost_attempts", "num_attached"
    query = select(*(_job.c[column] for column in columns), _result.c.failure, _result.c.result)
    with database.connect() as connection:
        found = connection.execute(query.outerjoin_from(_job, _result, _result.c.job_id == _job.c.id)).all()
    rows = {}
    for row in found:
        own_name = row.metadata.get("drill", "")
        if row.id in job_ids or own_name.startswith(f"{name}-"):
            result = Result() if row.result is None else _result_decoder.decode(row.result)
            rows[row.id] = Row(
                id=row.id,
                status=row.status,
                name=own_name,
                num_prompt=row.prompt_tokens,
                num_output=row.completion_tokens,
                num_token_ids=sum(len(event.token_ids) for entry in result.entries for event in entry),
                lost_attempts=row.lost_attempts,
                failure=(row.failure or {}).get("code", ""),
                num_attached=row.num_attached,
            )
    return rows


def running_on(database: Database, worker_id: str) -> dict[str, int]:
    """The attempt of each job that runs on a worker, by id."""
    with database.connect() as connection:
        return {state.job_id: state.attempt for state in jobs.list_running_of(connection, worker_id)}


def num_unended(database: Database, job_ids: Collection[str]) -> int:
    """How many of these jobs have not ended."""
    with database.connect() as connection:
        states = jobs.list_states(connection, job_ids)
    return sum(not JobStatus(state.status).is_terminal for state in states)


def read_again(stage: Stage, stories: Collection[Story]) -> dict[str, Replay]:
    """Every accepted job as the API and its log tell it now."""
    replays = {}
    with httpx2.Client(base_url=f"{stage.root_url}/v1", trust_env=False, timeout=_READ_LIMIT_S) as http:
        for story in stories:
            for job_id in story.ids[:1]:
                replay = _read_one(http, stage, story, job_id)
                if replay is not None:
                    replays[job_id] = replay
    return replays


def _read_one(http: httpx2.Client, stage: Stage, story: Story, job_id: str) -> Replay | None:
    path = read_path(story.kind, job_id)
    answer = http.get(path)
    if answer.status_code != 200:
        return None
    reported, frames = answer.json(), []
    text = text_of(story.kind.surface, reported) if "output" in reported or "choices" in reported else ""
    if story.kind.is_stream:
        raw = http.get(path, params={"stream": "true"}).text
        raw = re.sub("(?m)^:[^\n]*\n", "", raw)
        frames = [one for one in raw.split("\n\n") if one and not one.startswith("data: [DONE]")]
    with stage.redis() as connection:
        ends = [entry.end for entry in event_log.read_log(connection, job_id) if entry.end is not None]
        is_there = bool(connection.exists(event_log.log_key(job_id)))
    usage = ends[-1].usage if ends else None
    return Replay(
        frames=frames,
        text=text,
        num_ends=len(ends) if is_there else None,
        end_usage=None if usage is None else (usage.prompt_tokens, usage.completion_tokens),
    )


def make_references(stage: Stage, num_tokens: int) -> dict[str, Outcome]:
    """What each request comes to when nothing disturbs it: asked one after the other, and waited for."""
    references = {}
    wanted = {
        reference_key(kind, template): (kind, template) for kind in KINDS.values() for template in range(NUM_TEMPLATES)
    }
    with httpx2.Client(base_url=f"{stage.root_url}/v1", trust_env=False, timeout=_READ_LIMIT_S) as http:
        for key, (kind, template) in wanted.items():
            body = body_of(kind, template, num_tokens) | {"stream": False}
            body.pop("background", None)
            answer = http.post(kind.path.replace("/async", ""), json=body).raise_for_status().json()
            num_prompt, num_output = usage_of(answer)
            text = text_of(kind.surface, answer)
            references[key] = Outcome(text=text, num_prompt=num_prompt, num_output=num_output)
    return references


class Observer:
    """Listens at Redis itself and notes when each attempt of each job yielded its first tokens."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        self.first_at: dict[tuple[str, int], float] = {}
        self.last_at: dict[str, float] = {}

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        self._stopping.set()
        self._thread.join(5.0)

    def went_on_at(self, job_id: str, attempt: int) -> float | None:
        """When an attempt after `attempt` yielded its first tokens."""
        later = [at for (of_job, number), at in list(self.first_at.items()) if of_job == job_id and number > attempt]
        return min(later, default=None)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._stage.redis() as connection, connection.pubsub() as listener:
                    listener.subscribe(event_log.reader_channel(_TAP))
                    # A new connection may be one to a Redis that came back empty.
                    connection.sadd(event_log.TAPS_KEY, _TAP)
                    while not self._stopping.is_set():
                        message = listener.get_message(ignore_subscribe_messages=True, timeout=0.2)
                        if message is not None:
                            self._take(message["data"])
            except (RedisError, OSError, ValueError):
                self._stopping.wait(0.1)

    def _take(self, blob: bytes) -> None:
        now = time.monotonic()
        for job_id, attempt, _, kind, _ in event_log.decode_batch(blob):
            if kind == event_log.EntryKind.TOKENS:
                self.first_at.setdefault((job_id, attempt), now)
                self.last_at[job_id] = now
