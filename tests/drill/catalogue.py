"""Every fault of the drill, in the order of the table."""

from tests.drill import conversation_turns, faults, outages, outsiders
from tests.drill.batch_lines import beside_a_batch
from tests.drill.faults import Fault
from tests.drill.receiver import Manner

_POSTGRES = ("postgresql",)
_HANG = {f"worker-{number}": {"DRILL_HANG_FILE": f"hang-worker-{number}"} for number in (1, 2)}


def _clock(*parts: str, seconds: int) -> dict[str, dict[str, str]]:
    return {part: {"DRILL_CLOCK_SHIFT_S": str(seconds)} for part in parts}


def _with_clock(name: str, *parts: str, seconds: int) -> Fault:
    injections = _clock(*parts, seconds=seconds)
    return Fault(name=name, run=faults.kill_with_wrong_clocks, is_apart=True, injections=injections)


def _held(part: str, server: str, *, ends: tuple[str, ...] = ("cut", "late")) -> list[Fault]:
    """What the part writes to the server is held back; then the connection is cut, or all arrives late."""
    proxy = f"{part}-{server}".lower()
    return [
        Fault(
            name=f"{part} to {server} held, then {end}",
            run=outages.swallow(proxy, cuts=end == "cut"),
            databases=_POSTGRES if server == "database" else faults.BOTH,
            is_apart=True,
            proxied=(proxy,),
        )
        for end in ends
    ]


FAULTS = (
    Fault(name="kill -9 a worker of two", run=faults.kill_worker),
    Fault(name="kill -9 a worker with turns of conversations", run=conversation_turns.kill_worker_with_turns),
    Fault(name="SIGSTOP, SIGCONT a worker of two", run=faults.stop_and_go_on),
    Fault(name="SIGSTOP shorter than the lease", run=faults.stop_shortly),
    Fault(name="SIGTERM a worker of two", run=faults.drain_worker),
    Fault(name="kill -9 Redis, file kept", run=outages.kill_redis),
    Fault(name="kill -9 Redis, file lost", run=outages.kill_redis_and_file),
    Fault(name="FLUSHALL", run=outages.flush),
    Fault(name="Redis out of memory", run=outages.fill_redis),
    Fault(name="kill -9 the API", run=outages.kill_api),
    Fault(name="database locked 10 s", run=outages.lock_database),
    Fault(name="PostgreSQL restarts", run=outages.restart_postgres, databases=_POSTGRES),
    Fault(name="every ticket twice", run=faults.ticket_twice),
    Fault(name="a poison job", run=faults.poison),
    Fault(name="kill -9 the CPU worker", run=outsiders.kill_cpu_worker),
    Fault(name="callers leave", run=outsiders.leave),
    *(
        Fault(name=f"a receiver that is {manner}", run=outsiders.misbehave(manner))
        for manner in Manner
        if manner != "good"
    ),
    Fault(name="kill -9 everything", run=outages.kill_everything),
    Fault(name="kill -9 a worker beside a batch", run=beside_a_batch(faults.kill_worker)),
    Fault(name="kill -9 the CPU worker beside a batch", run=beside_a_batch(outsiders.kill_cpu_worker)),
    Fault(name="FLUSHALL beside a batch", run=beside_a_batch(outages.flush)),
    Fault(name="kill -9 everything beside a batch", run=beside_a_batch(outages.kill_everything)),
    Fault(name="kill -9 the only worker", run=faults.kill_only_worker, replicas=1),
    Fault(name="SIGSTOP, SIGCONT the only worker", run=faults.stop_only_worker, replicas=1),
    Fault(name="kill -9 an unsupervised worker", run=faults.kill_unsupervised_worker, is_apart=True),
    Fault(
        name="an engine hangs",
        run=faults.hang_engine,
        is_apart=True,
        settings={"watchdog_s": faults.WATCHDOG_S},
        injections=_HANG,
    ),
    *_held("API", "Redis"),
    Fault(name="API to Redis slow", run=outages.delay("api-redis"), is_apart=True, proxied=("api-redis",)),
    *_held("worker", "Redis", ends=("cut",)),
    *_held("API", "database"),
    *_held("worker", "database"),
    _with_clock("a worker an hour ahead", "worker-1", seconds=3600),
    _with_clock("a worker an hour behind", "worker-1", seconds=-3600),
    _with_clock("the CPU worker an hour ahead", "cpu", seconds=3600),
    _with_clock("the CPU worker an hour behind", "cpu", seconds=-3600),
    _with_clock("the API an hour ahead", "api", seconds=3600),
    _with_clock("the API an hour behind", "api", seconds=-3600),
)
