"""Faults of the ground and of the API: servers that die, forget, fill up or are locked, and networks that hold back."""

import signal
import sqlite3
import time
from collections.abc import Callable

import psycopg
from psycopg import sql

from api.cli.supervisor.child import Role
from tests.drill.faults import BACK_S
from tests.drill.scene import PATIENCE_S, Incident, Scene
from tests.waiting import wait_until

_LOCK_S = 10.0


# Redis.


def kill_redis(scene: Scene) -> Incident:
    """kill -9 of the embedded Redis; it comes back with what its file has."""
    return _kill_redis(scene, keeps_file=True)


def kill_redis_and_file(scene: Scene) -> Incident:
    """The same, and it comes back empty."""
    return _kill_redis(scene, keeps_file=False)


def _kill_redis(scene: Scene, *, keeps_file: bool) -> Incident:
    at = time.monotonic()
    scene.stage.signal(scene.supervised.pid_of(Role.REDIS), signal.SIGKILL)
    if not keeps_file:
        scene.supervised.forget_redis()
    back = scene.wait_for_redis()
    return Incident(at=at, back=back, target_s=BACK_S, away=(at, back))


def flush(scene: Scene) -> Incident:
    """FLUSHALL: tickets and logs are gone, connections stand."""
    at = time.monotonic()
    with scene.stage.redis() as connection:
        connection.flushall()
    return Incident(at=at, back=at, target_s=BACK_S)


def fill_redis(scene: Scene) -> Incident:
    """Redis out of memory: it reads and refuses every write for some seconds."""
    at = time.monotonic()
    with scene.stage.redis() as connection:
        before = connection.config_get("maxmemory")
        connection.config_set("maxmemory", 1)
        scene.pause(4.0, 7.0)
        connection.config_set("maxmemory", next(iter(before.values())))
    back = time.monotonic()
    return Incident(at=at, back=back, target_s=BACK_S, away=(at, back))


# API and everything.


def kill_api(scene: Scene) -> Incident:
    """kill -9 of the API while it streams."""
    at = time.monotonic()
    scene.stage.signal(scene.stage.api_pid(), signal.SIGKILL)
    wait_until(scene.stage.is_ready, PATIENCE_S, "the API")
    return Incident(at=at, back=time.monotonic(), target_s=BACK_S)


def kill_everything(scene: Scene) -> Incident:
    """kill -9 of the supervisor, which takes all with it; then start again on the same home."""
    known = {one.id for one in scene.stage.ready_workers()}
    at = time.monotonic()
    supervisor = scene.supervised.supervisor
    supervisor.kill()
    scene.pause(0.5, 2.0)
    supervisor.start()
    scene.wait_for_fresh_worker(known)
    scene.stage.wait_ready(1, supervisor)
    back = time.monotonic()
    return Incident(at=at, back=back, target_s=BACK_S, note=f"ready after {back - at:.1f} s")


# The database.


def lock_database(scene: Scene) -> Incident:
    """Somebody else holds the database's write lock for ten seconds."""
    if scene.stage.postgres is None:
        path = scene.stage.database_url.removeprefix("sqlite:///")
        with sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            at = time.monotonic()
            time.sleep(_LOCK_S)
            connection.execute("ROLLBACK")
        connection.close()
    else:
        with psycopg.connect(scene.stage.database_url.replace("+psycopg", "")) as holder:
            tables = holder.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            wanted = sql.SQL(", ").join(sql.Identifier(name) for (name,) in tables)
            wait_until(lambda: _is_locked(holder, wanted), PATIENCE_S, "the lock of every table")
            at = time.monotonic()
            time.sleep(_LOCK_S)
            holder.rollback()
    back = time.monotonic()
    return Incident(at=at, back=back, target_s=BACK_S, away=(at, back))


def _is_locked(holder: psycopg.Connection, tables: sql.Composed) -> bool:
    holder.rollback()
    try:
        holder.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(tables))
    except psycopg.errors.DeadlockDetected:
        # Somebody holds one of them and waits for another: they go first.
        return False
    return True


def restart_postgres(scene: Scene) -> Incident:
    """PostgreSQL crashes or is stopped, stays away for a while and starts again."""
    assert scene.stage.postgres is not None
    at = time.monotonic()
    scene.stage.postgres.stop(scene.random.choice([signal.SIGQUIT, signal.SIGINT]))
    scene.pause(2.0, 8.0)
    scene.stage.postgres.start()
    back = time.monotonic()
    return Incident(at=at, back=back, target_s=BACK_S, away=(at, back), note=f"away {back - at:.1f} s")


# The network.


def swallow(between: str, *, cuts: bool) -> Callable[[Scene], Incident]:
    """What the two say to each other is held back for some seconds; then it arrives, or the connections are cut."""

    def run(scene: Scene) -> Incident:
        proxy = scene.stage.proxies[between]
        at = time.monotonic()
        proxy.hold()
        scene.pause(6.0, 9.0)
        if cuts:
            proxy.cut()
        proxy.release()
        back = time.monotonic()
        is_api = between.startswith("api")
        return Incident(at=at, back=back, target_s=BACK_S, away=(at, back) if is_api else None)

    return run


def delay(between: str) -> Callable[[Scene], Incident]:
    """Everything between the two takes a fifth of a second more, for a while."""

    def run(scene: Scene) -> Incident:
        at = time.monotonic()
        scene.stage.proxies[between].delay(0.2)
        scene.pause(4.0, 6.0)
        scene.stage.proxies[between].delay(0.0)
        return Incident(at=at, back=time.monotonic(), target_s=BACK_S)

    return run
