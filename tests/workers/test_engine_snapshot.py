"""What a worker tells of its engine."""

from msgspec import structs
from structlog.testing import capture_logs

from storage.fleet import workers
from tests.fakes import FakeRunner, spec
from tests.waiting import wait_until
from tests.workers.harness import Backend, running, wait_for_answer
from workers.engine.stats import EngineStats
from workers.generation.engine_snapshot import EngineWatch

NOTHING = EngineStats(**dict.fromkeys(EngineStats.__struct_fields__, 0))


class FakeEngine:
    """Has done one step more at each snapshot."""

    def __init__(self) -> None:
        self.num_snapshots = 0

    def stats(self) -> EngineStats:
        self.num_snapshots += 1
        return structs.replace(NOTHING, num_steps=self.num_snapshots)


class FakeClock:
    """Stands still until it is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_engine_that_steps_fast_is_observed_twice_a_second() -> None:
    engine, clock = FakeEngine(), FakeClock()
    watch = EngineWatch(clock)

    for step in range(1000):
        clock.now = 100.0 + step / 500
        watch.observe(engine)

    assert engine.num_snapshots == 4
    assert watch.latest == structs.replace(NOTHING, num_steps=4)


def test_an_idle_engine_has_reported_everything() -> None:
    engine, watch = FakeEngine(), EngineWatch(FakeClock())
    watch.observe(engine)

    watch.settle(engine)

    assert watch.latest == structs.replace(NOTHING, num_steps=2)


def test_a_working_engine_is_logged_once_a_minute() -> None:
    engine, clock = FakeEngine(), FakeClock()
    watch = EngineWatch(clock)

    with capture_logs() as logs:
        for second in range(130):
            clock.now = 100.0 + second
            watch.observe(engine)

    assert [entry["event"] for entry in logs] == ["engine_stats"] * 2
    assert [entry["num_steps"] for entry in logs] == [61, 121]


def _engine_of(backend: Backend, worker_id: str) -> dict[str, int]:
    with backend.database.connect() as connection:
        row = workers.find(connection, worker_id)
    return (row and row.engine) or {}


def test_a_workers_row_tells_of_its_engine(backend: Backend) -> None:
    with running(backend, runner=FakeRunner(step_s=0.01)) as bench:
        long = backend.put_job(spec(1500))
        bench.submit(long)
        wait_until(lambda: _engine_of(backend, bench.worker_id).get("num_running") == 1)
        backend.cancel(long, bench.worker_id)
        wait_for_answer(bench.submit(backend.put_job(spec(5))))

        wait_until(lambda: _engine_of(backend, bench.worker_id).get("num_running") == 0)

    reported = _engine_of(backend, bench.worker_id)
    assert reported["num_prompt_tokens"] == 8
    assert reported["num_output_tokens"] > 6
