"""A generation worker played by threads: takes tickets from the queue, claims, writes logs and rows as the real one."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import redis
from msgspec import structs

from api.protocol.conversations.turn_items import turn_items
from storage.broker.celery_queue import queue_of
from storage.broker.event_log import LogWriter, Row, encode_end, encode_tokens
from storage.broker.redis_client import connect
from storage.contract import (
    Candidate,
    End,
    EntryKind,
    EventLogprobs,
    Failure,
    FinishReason,
    JobSpec,
    JobStatus,
    PriorityQueue,
    Result,
    TokenEvent,
    TokenLogprobs,
    Usage,
    WorkerStatus,
)
from storage.conversations.conversation_items import NewItem, new_items
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.fleet import manifests, workers
from storage.jobs import jobs, records
from storage.jobs.jobs import Claim
from storage.model_manifest import ModelManifest
from tests.protocol.examples import manifest

WORKER_ID = "worker-of-tests"
WORDS = ("Hel", "lo ", "wörld ", "\u2028", "", "agai", "n!")
TEXT = "".join(WORDS)
_POLL_S = 0.02


class FakeWorker:
    """Says WORDS to every prompt, one an entry, for every choice; later choices are likelier.

    words:     what it says
    specs:     of the jobs that it claimed
    num_cached: prompt tokens that it says it need not compute
    failure:   set, every job fails with it after its words
    is_silent_at_the_end: it commits, and dies before it writes the END
    pauses_at: set, each job waits before this entry (1 is the first) until `go`, or until it is cancelled
    """

    def __init__(self, database_url: str, redis_url: str) -> None:
        self.words: tuple[str, ...] = WORDS
        self.specs: list[JobSpec] = []
        self.num_cached = 0
        self.failure: Failure | None = None
        self.pauses_at: int | None = None
        self.is_silent_at_the_end = False
        self.go = threading.Event()
        self.num_claimed = self.num_finished = 0
        self._redis_url = redis_url
        self.database = Database(database_url)
        self._writer = Writer(self.database)
        self._redis = connect(redis_url)
        self._log = LogWriter(self._redis, WORKER_ID)
        self._log_lock = threading.Lock()
        self._rows: dict[str, list[Row]] = {}
        self._stopping = threading.Event()
        self._threads = ThreadPoolExecutor(32)
        self._loop = threading.Thread(target=self._run, daemon=True)
        self._model = ""

    def start(self, model_manifest: ModelManifest | None = None) -> None:
        """Register and begin to take tickets."""
        model_manifest = model_manifest or manifest()
        self._model = model_manifest.model
        self._writer.start()
        new = workers.NewWorker(
            worker_id=WORKER_ID, model=self._model, pid=1, host="here", device="cpu", dtype="float32", slots=8
        )
        self._write(lambda c: workers.register(c, new, datetime.now(UTC)))
        self.put_manifest(model_manifest)
        self.beat()
        self._loop.start()

    def put_manifest(self, model_manifest: ModelManifest) -> None:
        """Publish the manifest."""
        self._write(lambda c: manifests.put_manifest(c, model_manifest, datetime.now(UTC)))

    def beat(self) -> None:
        """Say that it lives and is ready."""
        self._write(lambda c: workers.set_status(c, WORKER_ID, WorkerStatus.READY))

    def die(self) -> None:
        """Be marked dead, and take no more tickets."""
        self._stopping.set()
        self._loop.join()
        self._write(lambda c: workers.mark_dead(c, WORKER_ID))

    def forget(self) -> None:
        """Be one that cannot write a lost log again."""
        with self._log_lock:
            self._rows.clear()

    def stop(self) -> None:
        """End everything."""
        self._stopping.set()
        self.go.set()
        if self._loop.is_alive():
            self._loop.join()
        self._threads.shutdown()
        self._writer.stop()
        self._redis.close()
        self.database.dispose()

    def _run(self) -> None:
        tickets = connect(self._redis_url)
        beats = 0
        while not self._stopping.is_set():
            try:
                found = tickets.brpop(
                    [queue_of(self._model, priority_queue) for priority_queue in PriorityQueue], timeout=0.05
                )
            except redis.RedisError:
                self._stopping.wait(_POLL_S)
                continue
            beats += 1
            if beats % 20 == 0:
                self.beat()
            if found is not None:
                self._threads.submit(self._work, json.loads(found[1])["headers"]["id"])
        tickets.close()

    def _work(self, job_id: str) -> None:
        try:
            self._run_job(job_id)
        finally:
            self.num_finished += 1

    def _run_job(self, job_id: str) -> None:
        claim = self._write(lambda c: jobs.claim(c, job_id, WORKER_ID, datetime.now(UTC)))
        if claim is None:
            return
        if claim.spec is None:
            with self.database.connect() as c:
                claim = structs.replace(claim, spec=jobs.get_spec(c, job_id))
        self.num_claimed += 1
        self.specs.append(claim.spec)
        self._append((job_id, claim.attempt, 0, EntryKind.START, b""))
        entries: list[tuple[TokenEvent, ...]] = []
        num_words = min(len(self.words), claim.spec.sampling.max_tokens)
        if num_words == 0:
            entries.append(_read_only(claim.spec))
            self._append((job_id, claim.attempt, 1, EntryKind.TOKENS, encode_tokens(entries[-1])))
        for seq in range(1, num_words + 1):
            if seq == self.pauses_at and not self._may_go_on(job_id):
                self._settle(job_id, claim, entries)
                return
            entries.append(self._events(claim, seq, num_words))
            self._append((job_id, claim.attempt, seq, EntryKind.TOKENS, encode_tokens(entries[-1])))
        self._finish(job_id, claim, entries)

    def _events(self, claim: Claim, seq: int, num_words: int) -> tuple[TokenEvent, ...]:
        is_last = seq == num_words and self.failure is None
        finish = (FinishReason.STOP if num_words == len(self.words) else FinishReason.LENGTH) if is_last else None
        return tuple(
            TokenEvent(
                choice=choice,
                token_ids=(seq,),
                text=self.words[seq - 1],
                finish=finish,
                logprobs=_logprobs(claim.spec, choice, seq, self.words[seq - 1]),
            )
            for choice in range(claim.spec.total_choices)
        )

    def _may_go_on(self, job_id: str) -> bool:
        """False as soon as the job is not ours any more."""
        while not self.go.wait(_POLL_S):
            with self.database.connect() as c:
                if not any(state.job_id == job_id for state in jobs.list_running_of(c, WORKER_ID)):
                    return False
        return True

    def _finish(self, job_id: str, claim: Claim, entries: list[tuple[TokenEvent, ...]]) -> None:
        result, usage, now, failure = Result(entries=tuple(entries)), self._usage(claim, entries), _now(), self.failure
        is_cut = claim.spec.sampling.max_tokens < len(self.words)
        status = JobStatus.INCOMPLETE if is_cut else JobStatus.COMPLETED
        if failure is not None:
            status = JobStatus.FAILED
            is_mine = self._write(lambda c: jobs.fail(c, job_id, claim.attempt, failure, result, usage, now))
        else:
            end = _end(status, usage, now, None)
            turn = self._turn(job_id, result, end) if claim.is_turn else None
            is_mine = self._write(
                lambda c: jobs.complete(
                    c, job_id, claim.attempt, status=status, result=result, usage=usage, now=now, turn=turn
                )
            )
        if self.is_silent_at_the_end:
            return
        if is_mine:
            self._append_end(job_id, claim, len(entries), _end(status, usage, now, failure))
        else:
            self._settle(job_id, claim, entries)

    def _turn(self, job_id: str, result: Result, end: End) -> list[NewItem]:
        with self.database.connect() as c:
            job = jobs.find(c, job_id)
        return [] if job is None else new_items(turn_items(records.header_of(job), result, end))

    def _settle(self, job_id: str, claim: Claim, entries: list[tuple[TokenEvent, ...]]) -> None:
        result, usage = Result(entries=tuple(entries)), self._usage(claim, entries)
        if self._write(lambda c: jobs.settle_stopped(c, job_id, claim.attempt, result, usage)):
            with self.database.connect() as c:
                job = jobs.find(c, job_id)
            end = None if job is None else records.end_of(job)
            if end is not None:
                self._append_end(job_id, claim, len(entries), end)

    def _append_end(self, job_id: str, claim: Claim, num_entries: int, end: End) -> None:
        self._append((job_id, claim.attempt, num_entries + 1, EntryKind.END, encode_end(end)))

    def _usage(self, claim: Claim, entries: list[tuple[TokenEvent, ...]]) -> Usage:
        return Usage(
            prompt_tokens=sum(len(prompt) for prompt in claim.spec.prompts),
            completion_tokens=sum(len(event.token_ids) for entry in entries for event in entry),
            cached_tokens=self.num_cached,
        )

    def _write(self, operation):  # type: ignore[no-untyped-def]  # as Writer.submit
        return self._writer.submit(operation).result(60)

    def _append(self, row: Row) -> None:
        while True:
            try:
                with self._log_lock:
                    self._rows.setdefault(row[0], []).append(row)
                    if self._log.append([row]).lost:
                        self._log.append(self._rows[row[0]])
                    return
            except redis.RedisError:
                if self._stopping.wait(0.1):
                    return


def _now() -> datetime:
    return datetime.now(UTC)


def _end(status: JobStatus, usage: Usage, now: datetime, failure: Failure | None) -> End:
    return End(status=status, usage=usage, ended_at=int(now.timestamp()), failure=failure)


def _read_only(spec: JobSpec) -> tuple[TokenEvent, ...]:
    return tuple(
        TokenEvent(
            choice=choice,
            token_ids=(),
            text="",
            finish=FinishReason.LENGTH,
            logprobs=EventLogprobs(prompt=_prompt_logprobs(spec, choice)),
        )
        for choice in range(spec.total_choices)
    )


def _logprobs(spec: JobSpec, choice: int, seq: int, word: str) -> EventLogprobs | None:
    if spec.sampling.logprobs is None:
        return None
    chosen = Candidate(seq, word.encode(), -1.0 / (1 + choice))
    prompt = _prompt_logprobs(spec, choice) if seq == 1 else ()
    return EventLogprobs(tokens=(TokenLogprobs(chosen, _top(spec.sampling.logprobs)),), prompt=prompt)


def _prompt_logprobs(spec: JobSpec, choice: int) -> tuple[TokenLogprobs, ...]:
    wanted, prompt = spec.sampling.prompt_logprobs, spec.prompts[choice // spec.num_choices]
    if wanted is None:
        return ()
    return tuple(TokenLogprobs(Candidate(token_id, b"x", -2.0), _top(wanted)) for token_id in prompt[1:])


def _top(count: int) -> tuple[Candidate, ...]:
    return tuple(Candidate(100 + rank, b"%d" % rank, -0.5 - rank) for rank in range(count))


@contextmanager
def working(database_url: str, redis_url: str) -> Iterator[FakeWorker]:
    """A registered worker that takes tickets."""
    worker = FakeWorker(database_url, redis_url)
    try:
        worker.start()
        yield worker
    finally:
        worker.stop()
