"""The client: a process of its own that asks for jobs, follows each to its end whatever happens, and writes a ledger.

`python -m tests.drill.client PLAN.json`; SIGTERM lets it begin nothing new, and it ends when all it began has ended.
"""

import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx2
import msgspec

from tests.drill.ledger import Ledger, What
from tests.drill.work import KINDS, NUM_TEMPLATES, Kind, body_of, read_path

# A stream says something, if only a comment, every 15 s.
_SILENCE_S = 40.0
_PAUSE_S = 0.2
_KNOCK_S = 0.35
_POLL_S = 0.25
_DONE = "data: [DONE]"
# Codes of errors that end a stream and not its job.
_COMES_AGAIN = ('"shutting_down"', '"storage_unavailable"')


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the client is to do.

    load:       how many jobs of each kind are under way together
    patience_s: how long it tries to bring one job to its end
    num_jobs:   ends each of these lines after so many jobs; 0 lets SIGTERM end them
    """

    base_url: str
    ledger: str
    load: dict[str, int]
    num_tokens: int
    seed: int
    name: str
    patience_s: float = 90.0
    num_jobs: int = 0
    webhook: dict[str, object] | None = None


class _OutOfPatience(Exception):
    """The job's time is over."""


@dataclass(slots=True)
class _Job:
    name: str
    kind: Kind
    body: dict[str, object]
    deadline: float
    id: str = ""
    # The next frame's number.
    num_seen: int = 0

    def check(self) -> None:
        """Raise when the client's patience is over."""
        if time.monotonic() > self.deadline:
            raise _OutOfPatience


class Client:
    """All jobs of one load."""

    def __init__(self, plan: Plan, ledger: Ledger, http: httpx2.AsyncClient) -> None:
        self._plan = plan
        self._ledger = ledger
        self._http = http
        self._random = random.Random(plan.seed)
        self.is_closing = False

    async def run(self) -> None:
        """Every line of jobs, to its end."""
        names = [(kind, place) for kind, number in self._plan.load.items() for place in range(number)]
        await asyncio.gather(*(self._line(kind, place) for kind, place in names))
        self._ledger.write("", What.CLOSED)

    async def _line(self, kind_name: str, place: int) -> None:
        """One job after the other; short ones at fixed times, however long those before them take."""
        together: set[asyncio.Task[None]] = set()
        for number in count():
            if self.is_closing or (self._plan.num_jobs and number >= self._plan.num_jobs):
                break
            work = self._job(kind_name, f"{self._plan.name}-{kind_name.replace(' ', '-')}-{place}-{number}")
            if not KINDS[kind_name].is_short:
                await work
                continue
            together = {task for task in together if not task.done()} | {asyncio.create_task(work)}
            await asyncio.sleep(_KNOCK_S)
        await asyncio.gather(*together)

    async def _job(self, kind_name: str, name: str) -> None:
        kind, template = KINDS[kind_name], self._random.randrange(NUM_TEMPLATES)
        body = body_of(kind, template, self._plan.num_tokens, name)
        if self._plan.webhook is not None:
            body["webhook"] = self._plan.webhook
        job = _Job(name, kind, body, time.monotonic() + self._plan.patience_s)
        try:
            await self._live(job, kind_name, template)
        except _OutOfPatience:
            self._ledger.write(name, What.GAVE_UP, id=job.id or None)

    async def _live(self, job: _Job, kind_name: str, template: int) -> None:
        is_over = False
        while not job.id and not is_over:
            job.check()
            self._ledger.write(job.name, What.ASKED, kind=kind_name, template=template)
            is_over = await self._create(job)
        if job.kind.is_polled:
            await self._poll(job)
        while not is_over and job.kind.is_stream:
            job.check()
            is_over = await self._resume(job)

    # Creation.

    async def _create(self, job: _Job) -> bool:
        """Whether the job's story already has its end."""
        started = time.monotonic()
        try:
            headers = {"idempotency-key": job.name}
            async with self._http.stream("POST", job.kind.path, json=job.body, headers=headers) as answer:
                took_s = time.monotonic() - started
                if answer.status_code >= 300:
                    await self._refused(job, answer, took_s)
                    # Asked again, a job that failed would fail again: the judge hears of it once.
                    return answer.status_code == 500
                job.id = answer.headers["x-job-id"]
                self._ledger.write(
                    job.name, What.ACCEPTED, id=job.id, status=answer.status_code, took_s=round(took_s, 4)
                )
                if job.kind.is_stream:
                    return await self._read(job, answer)
                text = (await answer.aread()).decode()
                if job.kind.is_blocking:
                    self._ledger.write(job.name, What.ENDED, data=text)
                return job.kind.is_blocking
        except (httpx2.HTTPError, OSError) as error:
            self._broken(job, error)
            await asyncio.sleep(_PAUSE_S)
            return False

    def _broken(self, job: _Job, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        if not job.id:
            self._ledger.write(job.name, What.BROKEN, data=reason)
        elif job.kind.is_stream:
            self._ledger.write(job.name, What.CUT, seq=job.num_seen - 1, data=reason)

    async def _refused(self, job: _Job, answer: httpx2.Response, took_s: float) -> None:
        """Note it and wait as long as the answer says."""
        text = (await answer.aread()).decode(errors="replace")
        retry_after = answer.headers.get("retry-after")
        self._ledger.write(
            job.name,
            What.REFUSED,
            id=job.id or answer.headers.get("x-job-id"),
            status=answer.status_code,
            retry_after=retry_after,
            took_s=round(took_s, 4),
            data=text[:500],
        )
        wait_s = float(retry_after) if retry_after else _PAUSE_S
        await asyncio.sleep(min(wait_s, 2.0))

    # Streams.

    async def _resume(self, job: _Job) -> bool:
        """Take the stream up where it was cut; whether it came to its end."""
        await asyncio.sleep(_PAUSE_S)
        after = job.num_seen - 1 if job.kind.path == "/responses" else job.num_seen
        query = {"stream": "true"} | ({"starting_after": str(after)} if job.num_seen else {})
        started = time.monotonic()
        try:
            async with self._http.stream("GET", read_path(job.kind, job.id), params=query) as answer:
                if answer.status_code != 200:
                    await self._refused(job, answer, time.monotonic() - started)
                    return False
                return await self._read(job, answer)
        except (httpx2.HTTPError, OSError) as error:
            self._broken(job, error)
            return False

    async def _read(self, job: _Job, answer: httpx2.Response) -> bool:
        """Write down every frame; whether the stream came to its end."""
        last = ""
        async for frame in _frames(answer):
            if frame.startswith(_DONE):
                self._ledger.write(job.name, What.ENDED)
                return True
            if frame.startswith('data: {"error"'):
                if any(word in frame for word in _COMES_AGAIN):
                    last = frame
                    break
                # The job's own failure, as chats tell it; the judge looks at the row.
                continue
            seq = job.num_seen
            if job.kind.path == "/responses":
                seq = json.loads(frame.partition("\ndata: ")[2])["sequence_number"]
            self._ledger.write(job.name, What.EVENT, seq=seq, data=frame)
            job.num_seen = max(job.num_seen, seq + 1)
        self._ledger.write(job.name, What.CUT, seq=job.num_seen - 1, data=last or "the stream ended without an end")
        return False

    # Polling.

    async def _poll(self, job: _Job) -> None:
        status = ""
        while True:
            await asyncio.sleep(_POLL_S)
            job.check()
            started = time.monotonic()
            try:
                answer = await self._http.get(read_path(job.kind, job.id))
            except (httpx2.HTTPError, OSError):
                continue
            if answer.status_code != 200:
                await self._refused(job, answer, time.monotonic() - started)
                continue
            reported = answer.json()
            # A chat that is done is the chat itself and has no status.
            now = reported.get("status", "completed")
            if now != status:
                status = now
                self._ledger.write(job.name, What.POLLED, data=status)
            if status not in ("queued", "in_progress"):
                self._ledger.write(job.name, What.ENDED, data=answer.text)
                return


async def _frames(answer: httpx2.Response) -> AsyncIterator[str]:
    """Whole frames without their blank line; comments are left out."""
    rest = b""
    async for piece in answer.aiter_raw():
        *whole, rest = (rest + piece).split(b"\n\n")
        for frame in whole:
            lines = [line for line in frame.decode().split("\n") if not line.startswith(":")]
            if lines:
                yield "\n".join(lines)


async def main(plan: Plan) -> None:
    """Run the load."""
    num_together = sum(plan.load.values())
    limits = httpx2.Limits(max_connections=num_together + 200)
    timeout = httpx2.Timeout(_SILENCE_S, connect=10.0)
    async with httpx2.AsyncClient(base_url=plan.base_url, trust_env=False, limits=limits, timeout=timeout) as http:
        client = Client(plan, Ledger(Path(plan.ledger)), http)

        def close() -> None:
            client.is_closing = True

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, close)
        await client.run()


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)))
