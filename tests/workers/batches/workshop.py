"""A batch without an API and without a generation worker: the runner is stepped, and jobs end as the test says."""

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from msgspec import structs
from redis import Redis

from storage.batches import batch_lines, batch_rows
from storage.batches.batch_states import BatchStatus, LineStatus
from storage.batches.tables import Batch, BatchLine
from storage.contract import Failure, FinishReason, JobStatus, Result, TokenEvent, Usage, WorkerStatus
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.files import stored_files
from storage.files.content_store import DatabaseContent
from storage.files.file_writer import FileWriter
from storage.files.stored_files import NewFile
from storage.files.tables import FilePurpose
from storage.fleet import manifests, workers
from storage.fleet.workers import NewWorker
from storage.ids import new_id
from storage.jobs import jobs
from storage.settings import RequestSettings
from tests.fakes import FakeQueue
from tests.protocol.examples import manifest
from workers.batches.batch_runner import BatchRunner
from workers.batches.batch_services import BatchServices

ENDPOINT = "/v1/chat/completions"
MODEL = "tiny"
MAX_BODY_BYTES = 20_000
_WORKER = "wrk_1"
RESULT = Result(entries=((TokenEvent(choice=0, token_ids=(5,), text="Hi\u2028", finish=FinishReason.STOP),),))
USAGE = Usage(prompt_tokens=3, completion_tokens=1)


def line(custom_id: str = "a", body: object = None, **changes: object) -> bytes:
    """A line of an input file, without its end."""
    usual = {"model": MODEL, "messages": [{"role": "user", "content": custom_id}], "max_tokens": 4}
    whole = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": usual if body is None else body}
    return json.dumps(whole | changes).encode()


def body(**changes: object) -> dict[str, object]:
    """The body of a line."""
    return {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4} | changes


class Workshop:
    """Everything on one database; `now` is the clock of the runner."""

    def __init__(self, database: Database, writer: Writer, redis: Redis) -> None:
        self.database = database
        self.writer = writer
        self.now = datetime.now(UTC)
        self.tickets = FakeQueue()
        settings = RequestSettings(
            database_url="sqlite:////nowhere.db", redis_url="redis://nowhere", max_body_bytes=MAX_BODY_BYTES
        )
        self.services = BatchServices(
            settings=settings,
            database=database,
            writer=writer,
            content=DatabaseContent(database),
            redis=redis,
            tickets=self.tickets,
        )
        self.runner = self.new_runner()
        self._num_claimed = 0

    def new_runner(self) -> BatchRunner:
        """A runner as another process would have it."""
        return BatchRunner(self.services, lambda: True, clock=lambda: self.now)

    def serve(self, model: str = MODEL, slots: int = 4) -> None:
        """Let a worker of the model be ready."""
        new = NewWorker(
            worker_id=f"{_WORKER}{model}", model=model, pid=1, host="h", device="cpu", dtype="float32", slots=slots
        )
        with self.database.begin() as c:
            manifests.put_manifest(c, structs.replace(manifest(), model=model), self.now)
            workers.register(c, new, self.now)
            workers.set_status(c, new.worker_id, WorkerStatus.READY)

    def put_file(self, content: bytes | Iterable[bytes], owner: str = "alice") -> str:
        """The id of a finished input file."""
        new = NewFile(
            file_id=new_id("file-"), owner=owner, purpose=FilePurpose.BATCH, filename="in.jsonl", created_at=self.now
        )
        writer = FileWriter(self.database, self.services.content, new)
        for piece in [content] if isinstance(content, bytes) else content:
            writer.write(piece)
        writer.close()
        with self.database.begin() as c:
            stored_files.finish(c, new.file_id, self.now)
        return new.file_id

    def create(self, content: bytes | Iterable[bytes], **changes: object) -> str:
        """The id of a new batch of these lines."""
        file_id, batch_id = self.put_file(content), new_id("batch_")
        with self.database.begin() as c:
            held = stored_files.hold(c, file_id, "alice", batch_id, self.now)
            values: dict[str, object] = {
                "id": batch_id,
                "owner": "alice",
                "endpoint": ENDPOINT,
                "status": BatchStatus.VALIDATING,
                "completion_window": "24h",
                "priority": 10,
                "input_file_id": file_id,
                "input_bytes": held.size_bytes,
                "models": [],
                "cursor_offset": 0,
                "created_at": self.now,
                "expires_at": self.now + timedelta(hours=24),
            }
            batch_rows.create(c, Batch(**(values | changes)))
        return batch_id

    def run(self, *, until: Callable[[], bool] | None = None, max_passes: int = 400) -> None:
        """Step the runner until it has nothing to do at once, or until the test is content."""
        for _ in range(max_passes):
            has_more = self.runner.run_once()
            if until() if until is not None else not has_more:
                return
        raise AssertionError("the runner does not come to rest")

    def batch(self, batch_id: str) -> Batch:
        """The batch's row."""
        with self.database.connect() as c:
            found = batch_rows.find(c, batch_id)
        assert found is not None
        return found

    def lines(self, batch_id: str) -> list[BatchLine]:
        """All lines, in the order of the file."""
        with self.database.connect() as c:
            return batch_lines.list_lines(c, batch_id, limit=100_000)

    def counts(self, batch_id: str) -> dict[LineStatus, int]:
        """Lines by status."""
        with self.database.connect() as c:
            return dict(batch_rows.count_lines(c, [batch_id])[batch_id])

    def codes(self, batch_id: str) -> list[tuple[object, object]]:
        """Codes and lines of the batch's errors."""
        return [(error["code"], error["line"]) for error in self.batch(batch_id).errors or ()]

    def claim(self) -> str:
        """The id of the job whose ticket is next, now in progress."""
        job_id, _ = self.tickets.sent[self._num_claimed]
        self._num_claimed += 1
        with self.database.begin() as c:
            assert jobs.claim(c, job_id, _WORKER, self.now) is not None
        return job_id

    def complete(self, job_id: str, status: JobStatus = JobStatus.COMPLETED) -> None:
        """End a claimed job well."""
        with self.database.begin() as c:
            assert jobs.complete(c, job_id, 1, status=status, result=RESULT, usage=USAGE, now=self.now)

    def fail(self, job_id: str) -> None:
        """End a claimed job badly."""
        failure = Failure(code="numerical_error", message="The logits were not finite.")
        with self.database.begin() as c:
            assert jobs.fail(c, job_id, 1, failure, Result(), USAGE, self.now)

    def finish_all(self) -> None:
        """Complete whatever becomes a job, until nothing is left to do."""
        while True:
            self.run()
            if self._num_claimed == len(self.tickets.sent):
                return
            while self._num_claimed < len(self.tickets.sent):
                self.complete(self.claim())

    def read_file(self, file_id: str | None) -> list[dict[str, object]]:
        """The lines of a file of results; none where there is no file."""
        if file_id is None:
            return []
        with self.database.connect() as c:
            file = stored_files.get(c, file_id, "alice", self.now)
        content = b"".join(
            self.services.content.read(file_id, start, min(2**20, file.size_bytes - start))
            for start in range(0, file.size_bytes, 2**20)
        )
        # As a careless reader does it: at every line separator of Unicode.
        return [json.loads(one) for one in content.decode().splitlines()]

    def results(self, batch_id: str) -> tuple[dict[str, dict[str, object]], dict[str, dict[str, object]]]:
        """Lines of the output file and of the error file, by custom id; each of them once."""
        batch, found = self.batch(batch_id), []
        for file_id in (batch.output_file_id, batch.error_file_id):
            lines = self.read_file(file_id)
            by_id = {str(one["custom_id"]): one for one in lines}
            assert len(by_id) == len(lines)
            found.append(by_id)
        assert not found[0].keys() & found[1].keys()
        return found[0], found[1]
