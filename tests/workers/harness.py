"""A generation worker without Celery: a real database, a real Redis, a fake model, tickets that note their answers."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from msgspec import structs
from redis import Redis
from sqlalchemy import insert

from storage import ids
from storage.broker.event_log import control_channel, encode_cancel, read_log
from storage.broker.redis_client import connect
from storage.contract import EntryKind, JobHeader, JobKind, JobSpec, JobStatus, LogEntry, Result
from storage.conversations import conversation_items, conversation_rows
from storage.conversations.conversation_items import POSITIONS_OF_TURN, Payload
from storage.database.connections import Database
from storage.database.table_definitions import table_of
from storage.embedding_job import AnySpec
from storage.jobs import jobs, records, recovery
from storage.jobs.attempts import list_attempts
from storage.jobs.records import JobRecord, NewJob
from storage.jobs.tables import Attempt
from storage.settings import StorageSettings
from tests.fakes import EOS, LIMITS, MANIFEST, TEXT, FakeRunner
from tests.text import tokenizers
from tests.waiting import wait_until
from workers.constraint.grammars import Grammars
from workers.engine.engine import Engine
from workers.generation.engine_thread import Loaded, TextTools
from workers.generation.process import GenerationProcess
from workers.settings import WorkerSettings

MODEL = MANIFEST.model
LEASE_S = 0.9


def load(runner: FakeRunner) -> Loaded:
    """An engine around the fake model."""
    engine = Engine(runner, TEXT, LIMITS)
    # A grammar's letters are those of this tokenizer; as text each id is a word.
    letters = tokenizers.byte_level().to_str()
    return Loaded(
        engine=engine,
        manifest=MANIFEST,
        text=TextTools(
            token_bytes=FakeTokenBytes(),
            grammars=Grammars(letters, vocab_size=LIMITS.vocab_size, eos_token_ids=LIMITS.eos_token_ids),
        ),
        device="cpu",
        dtype="float32",
    )


class FakeTokenBytes:
    """The bytes of the fake model's words; the first one of a text stands without its space."""

    def is_spoken(self, token_id: int) -> bool:
        return token_id != EOS

    def of(self, token_id: int, *, is_first: bool = False) -> bytes:
        text = "" if token_id == EOS else f" w{token_id}"
        return (text.lstrip() if is_first else text).encode()


class FakeTicket:
    """Notes how it was answered: "acknowledged" or "given back", once for each answer."""

    def __init__(self) -> None:
        self.answers: list[str] = []

    def acknowledge(self) -> None:
        self.answers.append("acknowledged")

    def give_back(self) -> None:
        self.answers.append("given back")


class FakeEventLoop:
    """A thread that runs what it is given, in order."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def call_soon(self, call: Callable[[], None]) -> None:
        self._calls.put(call)

    def stop(self) -> None:
        self._calls.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _new(spec: AnySpec, kind: JobKind, owner: str) -> NewJob:
    return NewJob(
        job_id=ids.new_job_id(kind),
        owner=owner,
        kind=kind,
        model=MODEL,
        background=True,
        store=False,
        request={},
        context={},
        metadata={},
        spec=spec,
        created_at=datetime.now(UTC),
    )


class Backend:
    """Rows and logs, as everybody sees them."""

    def __init__(self, database_url: str, redis_url: str, **settings: float) -> None:
        values = {"lease_s": LEASE_S} | settings
        self.settings = StorageSettings(database_url=database_url, redis_url=redis_url, **values)
        self.database = Database(database_url)
        self.redis: Redis = connect(redis_url)

    def put_job(
        self, spec: AnySpec, *, kind: JobKind = JobKind.COMPLETION, retention_s: int = 600, owner: str = "alice"
    ) -> str:
        """The id of a new queued job; it has no ticket."""
        return self._put(_new(spec, kind, owner), retention_s)

    def put_turn(self, spec: JobSpec, conversation_id: str = "conv_1") -> str:
        """The id of a new queued job in a new conversation."""
        with self.database.begin() as connection:
            row = conversation_rows.create(connection, conversation_id, "alice", {}, datetime.now(UTC))
            conversation_rows.reserve(connection, row, POSITIONS_OF_TURN)
        said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
        new = structs.replace(
            _new(spec, JobKind.RESPONSE, "alice"),
            context={"input_items": [said]},
            conversation_id=conversation_id,
            conversation_position=0,
        )
        return self._put(new, 600)

    def _put(self, new: NewJob, retention_s: int) -> str:
        with self.database.begin() as connection:
            for table, values in jobs.rows_of(new, retention_s):
                connection.execute(insert(table_of(table)).values(**values))
        return new.job_id

    def items(self, conversation_id: str = "conv_1") -> list[Payload]:
        """The items of a conversation."""
        with self.database.connect() as connection:
            page = conversation_items.list_page(
                connection, conversation_id, after=None, limit=100, is_newest_first=False
            )
        return page.items

    def claim(self, job_id: str, worker_id: str = "somebody") -> int:
        """The attempt of the job that is now another worker's."""
        with self.database.begin() as connection:
            claim = jobs.claim(connection, job_id, worker_id, datetime.now(UTC))
        assert claim is not None
        return claim.attempt

    def requeue(self, job_id: str, attempt: int) -> None:
        """Give a claimed job back."""
        with self.database.begin() as connection:
            assert jobs.requeue(connection, job_id, attempt)

    def lose(self, job_id: str, *, times: int) -> None:
        """Let the job run on so many workers that die."""
        for _ in range(times):
            self.claim(job_id, "dead")
            with self.database.begin() as connection:
                recovery.requeue_of_dead_workers(connection, ["dead"], max_lost_attempts=99, now=datetime.now(UTC))

    def cancel(self, job_id: str, worker_id: str | None = None) -> None:
        """Cancel the row, and tell a worker if one is named."""
        with self.database.begin() as connection:
            assert jobs.cancel(connection, job_id, datetime.now(UTC)) is not None
        if worker_id is not None:
            self.redis.publish(control_channel(worker_id), encode_cancel(job_id))

    def attempts(self, job_id: str) -> list[Attempt]:
        """The ended attempts at the job."""
        with self.database.connect() as connection:
            return list_attempts(connection, job_id)

    def spec(self, job_id: str) -> AnySpec:
        """What the job asks."""
        with self.database.connect() as connection:
            return jobs.get_spec(connection, job_id)

    def header(self, job_id: str) -> JobHeader:
        """What the folds need of the job."""
        return records.header_of(self.row(job_id))

    def row(self, job_id: str) -> JobRecord:
        """The job's row."""
        with self.database.connect() as connection:
            job = jobs.find(connection, job_id)
        assert job is not None
        return job

    def log(self, job_id: str) -> list[LogEntry]:
        """The job's log."""
        return read_log(self.redis, job_id)

    def is_closed(self, job_id: str) -> bool:
        """Whether the log has its END."""
        return any(entry.kind is EntryKind.END for entry in self.log(job_id))

    def wait_for_tokens(self, job_id: str, num_entries: int, timeout_s: float = 10.0) -> None:
        """Return when so many entries are in the log."""
        wait_until(lambda: len(tokens_of(self.log(job_id))) >= num_entries, timeout_s, "tokens")

    def wait_for_status(self, job_id: str, status: JobStatus, timeout_s: float = 10.0) -> None:
        """Return when the row says so."""
        wait_until(lambda: self.row(job_id).status is status, timeout_s, f"status {status}")

    def close(self) -> None:
        self.database.dispose()
        self.redis.close()


class Bench:
    """One worker on a backend; `settings` are those of `WorkerSettings`."""

    def __init__(
        self,
        backend: Backend,
        *,
        runner: FakeRunner | None = None,
        failure: Exception | None = None,
        model: Loaded | None = None,
        **settings: float,
    ) -> None:
        """failure: what loading the model raises; model: instead of the fake one around the runner"""
        self._model = model
        self.backend = backend
        self.failure = failure
        self.runner = runner or FakeRunner()
        self.event_loop = FakeEventLoop()
        self.was_fatal = threading.Event()
        self.exit_codes: list[int] = []
        self._is_over = threading.Event()
        self.worker_id = ids.new_id("wrk_")
        own = WorkerSettings(model=MODEL, served_name=MODEL, worker_id=self.worker_id, **settings)
        self.process = GenerationProcess(
            own,
            backend.settings,
            self._load,
            self.event_loop.call_soon,
            self.was_fatal.set,
            self._end_hard,
        )

    def _load(self) -> Loaded:
        if self.failure is not None:
            raise self.failure
        return self._model or load(self.runner)

    def _end_hard(self, code: int) -> None:
        """Beat no more, as a process that has ended."""
        self.exit_codes.append(code)
        self._is_over.wait()

    def submit(self, job_id: str) -> FakeTicket:
        """Deliver a ticket."""
        ticket = FakeTicket()
        self.event_loop.call_soon(lambda: self.process.accept(job_id, ticket))
        return ticket

    def stop(self) -> None:
        """As after a signal, without a grace period."""
        self._is_over.set()
        self.process.drain()
        self.process.give_back()
        wait_until(lambda: self.process.num_live == 0)
        self.process.stop()
        self.event_loop.stop()


@contextmanager
def running(
    backend: Backend, *, runner: FakeRunner | None = None, model: Loaded | None = None, **settings: float
) -> Iterator[Bench]:
    """A worker that is ready; stopped at the end if the test has not done so."""
    bench = Bench(backend, runner=runner, model=model, **settings)
    bench.process.start(lambda: None)
    try:
        yield bench
    finally:
        bench.stop()


def wait_for_answer(ticket: FakeTicket, timeout_s: float = 10.0) -> str:
    """The answer of a ticket that is answered once."""
    wait_until(lambda: ticket.answers, timeout_s, "an answer")
    assert len(ticket.answers) == 1
    return ticket.answers[0]


def tokens_of(log: list[LogEntry]) -> list[LogEntry]:
    """The TOKENS entries."""
    return [entry for entry in log if entry.kind is EntryKind.TOKENS]


def text_of(log: list[LogEntry], choice: int = 0) -> str:
    """What the log says for one choice."""
    events = [event for entry in log for event in entry.tokens if event.choice == choice]
    return "".join(event.text for event in events)


def assert_whole(log: list[LogEntry], result: Result) -> None:
    """A log that begins with a START, has no gap, closes with its END and tells what the row tells."""
    assert log[0].kind is EntryKind.START
    assert [entry.seq for entry in tokens_of(log)] == list(range(1, len(result.entries) + 1))
    assert tuple(entry.tokens for entry in tokens_of(log)) == result.entries
    assert [entry.kind for entry in log].count(EntryKind.END) == 1
    assert log[-1].kind is EntryKind.END
