"""Addresses of names: found, shared among few threads, and no reason for a process to stay."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from storage.network.resolver import Resolver
from tests.waiting import wait_until_async

# Asks for a name of which nobody ever hears, gives up, and comes to its end.
_GIVES_UP = """
import asyncio, socket, threading
from api.webhooks.url_check import WebhookUrlCheck
from storage.network.url_policy import Policy
socket.getaddrinfo = lambda *args, **options: threading.Event().wait()
asyncio.run(WebhookUrlCheck(Policy).judge("https://silent.example/", param="url"))
print("judged", flush=True)
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator["SlowServer"]:
    """The system's resolver, which answers when a test lets it."""
    slow = SlowServer()
    monkeypatch.setattr(socket, "getaddrinfo", slow.getaddrinfo)
    yield slow
    slow.answers.set()


class SlowServer:
    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked: list[str] = []

    def getaddrinfo(self, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        self.asked.append(host)
        self.answers.wait()
        if host == "absent.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", (address, port)) for address in ("192.0.2.1", "192.0.2.1", "2001:db8::1")]


async def test_a_name_has_its_addresses_each_once() -> None:
    assert "127.0.0.1" in await Resolver(1).resolve("localhost", 80)


async def test_addresses_come_in_order_and_a_refusal_as_it_is(server: SlowServer) -> None:
    server.answers.set()
    resolver = Resolver(1)

    assert await resolver.resolve("hooks.example", 443) == ["192.0.2.1", "2001:db8::1"]
    with pytest.raises(socket.gaierror):
        await resolver.resolve("absent.example", 443)
    assert await resolver.resolve("hooks.example", 443) == ["192.0.2.1", "2001:db8::1"]


async def test_who_has_given_up_keeps_the_place_until_the_system_answers(server: SlowServer) -> None:
    resolver = Resolver(2)
    gone = [asyncio.create_task(resolver.resolve(f"{number}.example", 443)) for number in range(2)]
    await wait_until_async(lambda: len(server.asked) == 2)
    for task in gone:
        task.cancel()
    await asyncio.wait(gone)

    third = asyncio.create_task(resolver.resolve("third.example", 443))
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(server.asked) == 2
    server.answers.set()

    assert await third == ["192.0.2.1", "2001:db8::1"]


def test_a_name_server_that_hangs_does_not_keep_a_process_from_ending() -> None:
    # Joined threads would keep it for ever.
    ended = subprocess.run([sys.executable, "-c", _GIVES_UP], capture_output=True, text=True, timeout=30, check=False)

    assert ended.stdout.splitlines()[-1] == "judged"
    assert ended.returncode == 0, ended.stderr
