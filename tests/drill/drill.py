"""One fault from start to verdict, and the platform that faults happen to."""

import contextlib
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from storage.errors import StorageUnavailable
from tests.drill import measures
from tests.drill.client import Plan
from tests.drill.faults import Fault
from tests.drill.judge import Evidence, Harm, Hook, Outcome, Violation, judge, stories_of
from tests.drill.ledger import Ledger, Reader, What
from tests.drill.parts import Part, environment
from tests.drill.proxy import Proxy
from tests.drill.scene import Incident, Scene
from tests.drill.stage import Apart, Stage, Supervised, fresh_database
from tests.drill.witness import Observer, num_unended, read_again, read_rows
from tests.drill.work import KINDS
from tests.services import PostgresServer
from tests.waiting import wait_until

_UNDER_WAY_LIMIT_S = 90.0
_RECOVERY_LIMIT_S = 40.0
_CLIENT_LIMIT_S = 120.0
# The sweeper completes the log of an ended job after this long (TOKENPOST_SETTLING_S) and a sweep.
_SETTLING_LIMIT_S = 12.0
# A delivery whose sender died is another's after a minute; then comes its turn.
_HOOKS_LIMIT_S = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the client does meanwhile.

    lines:      how many jobs of each kind are under way together
    num_tokens: length of an answer
    """

    lines: dict[str, int]
    num_tokens: int
    patience_s: float = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of one fault: a row of the table.

    num_cuts:   how often a client's stream or request was cut off
    recovery_s: None where nothing was there to recover
    error:      why the fault could not be judged
    """

    fault: str
    database: str
    num_jobs: int = 0
    num_cuts: int = 0
    violations: list[Violation] = field(default_factory=list)
    recovery_s: float | None = None
    target_s: float | None = None
    creates: measures.Creates | None = None
    note: str = ""
    error: str = ""

    def count(self, harm: Harm) -> int:
        """How many breaches of this kind."""
        return sum(violation.harm is harm for violation in self.violations)

    @property
    def is_whole(self) -> bool:
        """Whether nothing was lost, doubled or changed."""
        return not self.violations and not self.error

    @property
    def is_in_time(self) -> bool:
        """Whether recovery and refusals kept to their times."""
        late = self.target_s is not None and (self.recovery_s is None or self.recovery_s > self.target_s)
        return not late and (self.creates is None or self.creates.is_good)

    @property
    def verdict(self) -> str:
        """In a word."""
        if self.error:
            return "broken"
        if self.violations:
            return "HARM"
        return "good" if self.is_in_time else "late"


@contextlib.contextmanager
def platform_for(fault: Fault, database: str) -> Iterator[Stage]:
    """A platform that is ready for this fault and all others with the same ground."""
    # Not the home of whoever runs this: a socket's path may have 107 characters at most.
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="tp-drill-", ignore_cleanup_errors=True))
        folder = Path(name)
        url, postgres = stack.enter_context(fresh_database(database, folder))
        stage = _stage(fault, folder, url, postgres)
        stack.callback(stage.receiver.stop)
        stage.receiver.start()
        try:
            stage.start()
            yield stage
        finally:
            # What is held back would hold up the end.
            for proxy in stage.proxies.values():
                proxy.release()
            stage.stop()
            for proxy in stage.proxies.values():
                proxy.stop()


def _stage(fault: Fault, folder: Path, url: str, postgres: PostgresServer | None) -> Stage:
    if not fault.is_apart:
        return Supervised(folder, url, postgres, replicas=fault.replicas, settings=fault.settings)
    injections = {
        part: {key: _absolute(folder, value) for key, value in injection.items()}
        for part, injection in fault.injections.items()
    }
    own: dict[str, dict[str, object]] = {}
    proxies: dict[str, Proxy] = {}
    for between in fault.proxied:
        part, _, server = between.partition("-")
        proxy = proxies[between] = Proxy(_socket_of(server, folder, postgres))
        proxy.start()
        names = [f"worker-{number}" for number in range(1, fault.replicas + 1)] if part == "worker" else [part]
        for one in names:
            if server == "redis":
                own.setdefault(one, {})["redis_url"] = f"redis://127.0.0.1:{proxy.port}/0"
            else:
                database = url.partition("?")[0].rpartition("/")[2]
                own.setdefault(one, {})["database_url"] = f"postgresql://postgres@127.0.0.1:{proxy.port}/{database}"
    stage = Apart(
        folder, url, postgres, replicas=fault.replicas, settings=fault.settings, own=own, injections=injections
    )
    stage.proxies = proxies
    return stage


def _socket_of(server: str, folder: Path, postgres: PostgresServer | None) -> Path:
    if server == "redis":
        # The stage makes it.
        return folder / "redis" / "redis.sock"
    assert postgres is not None
    return postgres.socket


def _absolute(folder: Path, value: str) -> str:
    return str(folder / value) if value.startswith("hang-") else value


def run_fault(
    stage: Stage,
    fault: Fault,
    *,
    references: dict[str, Outcome],
    load: Load,
    chance: random.Random,
    number: int = 0,
) -> Report:
    """Load, fault, recovery, end of the load, verdict."""
    name = re.sub(r"[^a-z0-9]+", "-", fault.name.lower()) + f"-{number}"
    ledger = stage.folder / f"ledger-{name}.jsonl"
    client = _client(stage, name, ledger, load, chance.randrange(1 << 30))
    observer = Observer(stage)
    scene = Scene(
        name=name,
        num_tokens=load.num_tokens,
        stage=stage,
        random=chance,
        observer=observer,
        reader=Reader(ledger),
        ledger=Ledger(ledger),
    )
    observer.start()
    client.start()
    try:
        incident = _disturb(scene, fault, client, load)
        _close(client)
        return _verdict(scene, fault, incident, references)
    except Exception as error:  # noqa: BLE001 - one fault that goes wrong must not hide the others
        return Report(fault=fault.name, database=stage.database_name, error=f"{type(error).__name__}: {error}"[:2000])
    finally:
        client.kill()
        observer.stop()
        scene.ledger.close()


def _client(stage: Stage, name: str, ledger: Path, load: Load, seed: int) -> Part:
    plan = Plan(
        base_url=f"{stage.root_url}/v1",
        ledger=str(ledger),
        load=load.lines,
        num_tokens=load.num_tokens,
        seed=seed,
        name=name,
        patience_s=load.patience_s,
        webhook=stage.receiver.target,
    )
    file = stage.folder / f"plan-{name}.json"
    file.write_bytes(msgspec.json.encode(plan))
    return Part(
        f"client-{name}", [sys.executable, "-m", "tests.drill.client", str(file)], environment({}), stage.folder
    )


def _disturb(scene: Scene, fault: Fault, client: Part, load: Load) -> Incident:
    """Do the harm once all is under way; return when the platform goes on, or should."""
    num_streams = sum(number for kind, number in load.lines.items() if KINDS[kind].is_stream)

    def is_under_way() -> bool:
        assert client.is_running, client.log.read_text()[-2000:]
        return len(measures.streams_open_at(scene.reader.read_new(), time.monotonic())) >= num_streams * 0.7

    wait_until(is_under_way, _UNDER_WAY_LIMIT_S, "a load under way")
    scene.pause(0.2, 1.5)
    incident = fault.run(scene)
    with contextlib.suppress(AssertionError):
        wait_until(lambda: _recovery(scene, incident) is not None, _RECOVERY_LIMIT_S)
    scene.pause(0.5, 1.0)
    return incident


def _recovery(scene: Scene, incident: Incident) -> float | None:
    """Seconds until the platform went on; None where it has not yet."""
    if incident.interrupted is not None:
        return _interrupted_went_on(scene, incident)
    entries = scene.reader.read_new()
    probe = measures.probe_succeeded(entries, incident.back)
    streams = measures.streams_went_on(entries, incident.back)
    if probe is None or streams == float("inf"):
        return None
    return max(probe, streams or 0.0)


def _interrupted_went_on(scene: Scene, incident: Incident) -> float | None:
    """Until the last of the interrupted jobs yielded tokens again; those that had just ended count for nothing."""
    went_on, last = {}, 0.0
    with contextlib.suppress(StorageUnavailable):
        rows = read_rows(scene.stage.database, scene.name, list(incident.interrupted or {}))
        for job_id, attempt in (incident.interrupted or {}).items():
            went_on[job_id] = scene.observer.went_on_at(job_id, attempt)
            has_ended = job_id in rows and rows[job_id].status not in ("queued", "in_progress")
            if went_on[job_id] is None and not has_ended:
                return None
        last = max((at for at in went_on.values() if at is not None), default=incident.back)
        return max(0.0, last - incident.back)
    return None


def _close(client: Part) -> None:
    """Let the client end what it began."""
    assert client.process is not None
    client.process.terminate()
    with contextlib.suppress(Exception):
        client.process.wait(_CLIENT_LIMIT_S)
    assert not client.is_running, f"the client did not end in {_CLIENT_LIMIT_S} s"
    assert client.process.returncode == 0, client.log.read_text()[-2000:]


def _verdict(scene: Scene, fault: Fault, incident: Incident, references: dict[str, Outcome]) -> Report:
    stage, entries = scene.stage, scene.reader.read_new()
    stories = stories_of(entries)
    job_ids = [job_id for story in stories.values() for job_id in story.ids]
    # Jobs that nobody knows of, after a broken connection, have a while to end as well.
    with contextlib.suppress(AssertionError):
        wait_until(lambda: num_unended(stage.database, job_ids) == 0, _SETTLING_LIMIT_S)
        wait_until(lambda: not _has_open_rows(scene), _SETTLING_LIMIT_S)
    accepted = [story for story in stories.values() if story.ids]
    replays = read_again(stage, accepted)
    if any(replay.num_ends == 0 for replay in replays.values()):
        time.sleep(_SETTLING_LIMIT_S)
        replays = read_again(stage, accepted)
    hooks = _wait_for_hooks(stage, job_ids)
    evidence = Evidence(
        entries=entries,
        references=references,
        rows=read_rows(stage.database, scene.name, job_ids),
        replays=replays,
        hooks=hooks,
        doomed=incident.doomed,
    )
    creates = None if incident.away is None else measures.creates_between(entries, *incident.away)
    return Report(
        fault=fault.name,
        database=stage.database_name,
        num_jobs=len(set(job_ids)),
        num_cuts=sum(entry.what in (What.CUT, What.BROKEN) for entry in entries),
        violations=judge(evidence),
        recovery_s=_recovery(scene, incident) if incident.took_s is None else incident.took_s,
        target_s=incident.target_s,
        creates=creates,
        note=incident.note,
    )


def _wait_for_hooks(stage: Stage, job_ids: list[str]) -> dict[str, list[Hook]]:
    """What the receiver received, once it received an event of every job, or its time is over."""

    def has_received_all() -> bool:
        hooks = stage.receiver.hooks()
        return all(any(hook.is_taken for hook in hooks.get(job_id, [])) for job_id in job_ids)

    with contextlib.suppress(AssertionError):
        wait_until(has_received_all, _HOOKS_LIMIT_S)
    return stage.receiver.hooks()


def _has_open_rows(scene: Scene) -> bool:
    rows = read_rows(scene.stage.database, scene.name, ())
    return any(row.status in ("queued", "in_progress") for row in rows.values())
