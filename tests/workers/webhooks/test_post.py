"""One POST, to real receivers on this machine: what is sent, what comes back, and which addresses are refused."""

import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import OpenAI

from storage.network.url_policy import Policy, Resolve
from tests.workers.webhooks.examples import NOW, sending
from tests.workers.webhooks.receiver import (
    CERTIFICATES,
    Answering,
    Receiver,
    answer,
    drip,
    flood,
    hang_up,
    receiving,
    send_then_hang,
)
from workers.webhooks.post import MAX_ANSWER_BYTES, Poster
from workers.webhooks.verdict import Answer

LOOPBACK = Policy(allows_loopback=True)
# Only that one address is an internal receiver.
ONE_ADDRESS = Policy(allowed=("127.0.0.1",))
SHORT_S = 0.3


class FakeNames:
    """Tells each question about a host's addresses something else."""

    def __init__(self, *answers: list[str]) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self._answers.pop(0)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


async def _post(
    url: str, policy: Policy = LOOPBACK, *, resolve: Resolve | None = None, timeout_s: float = 5.0, **changes: Any
) -> Answer:
    context = ssl.create_default_context(cafile=CERTIFICATES / "ca.pem")
    return await Poster(context, resolve=resolve, timeout_s=timeout_s).post(sending(url=url, **changes), policy, NOW)


async def _post_to(answering: Answering, timeout_s: float = 5.0) -> Answer:
    async with receiving(answering) as opened:
        response = await _post(opened.url, timeout_s=timeout_s)
        assert len(opened.calls) == 1
    return response


async def test_the_openai_sdk_takes_what_is_sent(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    one = sending(url=receiver.url + "?a=b%20c")
    response = await Poster(ssl.create_default_context()).post(one, LOOPBACK, NOW)

    assert (response.status_code, response.error, response.text) == (200, None, "thanks")
    [call] = receiver.calls
    assert call.line == "POST /hook?a=b%20c HTTP/1.1"
    assert call.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert call.headers["content-type"] == "application/json"
    assert "authorization" not in call.headers
    monkeypatch.setattr("time.time", NOW.timestamp)
    event = OpenAI(api_key="k", webhook_secret=one.secrets[0]).webhooks.unwrap(call.body, call.headers)
    assert event.id == "evt_1"
    assert event.type == "response.completed"
    assert event.data.id == "resp_1"


@pytest.mark.parametrize("status", [204, 299, 400, 410, 500])
async def test_any_status_is_post_to(status: int) -> None:
    assert (await _post_to(answer(status, b""))).status_code == status


async def test_a_redirect_is_not_followed() -> None:
    async with receiving() as other:
        response = await _post_to(answer(302, location=other.url))
        assert response.status_code == 302
        assert other.calls == []


async def test_a_wish_to_be_left_alone_is_post_to() -> None:
    assert (await _post_to(answer(429, retry_after="7"))).retry_after_s == 7.0
    assert (await _post_to(answer(503, retry_after="soon"))).retry_after_s is None


async def test_a_success_counts_whatever_its_retry_after() -> None:
    received = await _post_to(answer(200, retry_after="Fri, 31 Dec 99999999999999 23:59:59 GMT"))

    assert (received.is_success, received.error, received.retry_after_s) == (True, None, None)


async def test_an_answer_without_end_is_cut_and_its_first_2_kb_kept() -> None:
    response = await _post_to(flood)
    assert response.is_success
    assert response.text == "y" * 2048
    assert MAX_ANSWER_BYTES == 65536


async def test_no_answer_in_time_is_a_failure_however_much_drips() -> None:
    slow = "No answer came within 0.3 s."
    assert (await _post_to(send_then_hang(b""), SHORT_S)).error == slow
    assert (await _post_to(drip(b"HTTP/1.1 200 OK\r\nx-y: "), SHORT_S)).error == slow
    assert (await _post_to(drip(b"HTTP/1.1 103 Early Hints\r\n\r\n"), SHORT_S)).error is not None


async def test_an_answer_that_began_in_time_counts_and_the_rest_is_cut() -> None:
    response = await _post_to(drip(b"HTTP/1.1 200 OK\r\n\r\nbegun "), SHORT_S)
    assert response.is_success
    assert (response.text or "").startswith("begun x")
    response = await _post_to(send_then_hang(b"HTTP/1.1 500 X\r\ncontent-length: 10\r\n\r\nab"), SHORT_S)
    assert (response.status_code, response.error, response.text) == (500, None, "ab")


@pytest.mark.parametrize(
    "answering", [hang_up, send_then_hang(b"no HTTP at all\r\n\r\n"), drip(b"HTTP/1.1 200 OK\r\nx: " + b"z" * 300_000)]
)
async def test_what_is_no_answer_is_a_failure(answering: Answering) -> None:
    response = await _post_to(answering)
    assert response.status_code is None
    assert (response.error or "").startswith("The connection failed: ")
    assert len(response.error or "") <= 500


async def test_nobody_there_is_a_failure() -> None:
    async with receiving() as opened:
        url = opened.url
    response = await _post(url)
    assert response.error == "The connection failed: no server accepts connections there."


async def test_text_that_a_database_cannot_keep_is_replaced() -> None:
    assert (await _post_to(answer(200, b"a\0b\xff"))).text == "a\ufffdb\ufffd"


@pytest.mark.parametrize("policy", [Policy(), Policy(allows_http=True), Policy(allowed=("10.0.0.0/8",))])
async def test_nothing_is_posted_to_this_machine_unless_it_is_allowed(receiver: Receiver, policy: Policy) -> None:
    for host in ("127.0.0.1", "localhost", "[::1]", "2130706433", "[::ffff:127.0.0.1]"):
        response = await _post(f"http://{host}:{receiver.port}/hook", policy)
        assert response.status_code is None
        assert (response.error or "").startswith("No webhook can be sent to this URL: ")
    assert receiver.calls == []


async def test_a_name_is_asked_for_once_and_its_judged_address_is_used(receiver: Receiver) -> None:
    names = FakeNames(["127.0.0.1"], ["127.0.0.2"])
    response = await _post(f"http://hooks.example:{receiver.port}/", ONE_ADDRESS, resolve=names.resolve)

    assert response.is_success
    assert names.asked == ["hooks.example"]
    assert receiver.calls[0].address == "127.0.0.1"
    assert receiver.calls[0].headers["host"] == f"hooks.example:{receiver.port}"


async def test_a_name_that_means_another_machine_by_now_is_refused(receiver: Receiver) -> None:
    names = FakeNames(["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1", "10.0.0.1"])
    url = f"http://hooks.example:{receiver.port}/"
    assert (await _post(url, ONE_ADDRESS, resolve=names.resolve)).is_success
    for _ in range(2):
        response = await _post(url, ONE_ADDRESS, resolve=names.resolve)
        assert "no public address" in (response.error or "")
    assert len(receiver.calls) == 1


async def test_the_next_address_is_tried_where_one_does_not_answer(receiver: Receiver) -> None:
    names = FakeNames(["127.0.0.3", "127.0.0.1"])
    response = await _post(f"http://hooks.example:{receiver.port}/", LOOPBACK, resolve=names.resolve)
    assert response.is_success


async def test_a_certificate_must_be_of_the_name_and_not_of_the_address() -> None:
    async with receiving(is_tls=True) as secure:
        names = FakeNames(*[["127.0.0.1"]] * 2)
        response = await _post(f"https://hooks.example:{secure.port}/", ONE_ADDRESS, resolve=names.resolve)
        assert response.is_success
        response = await _post(f"https://other.example:{secure.port}/", ONE_ADDRESS, resolve=names.resolve)
        assert "ertificate" in (response.error or "")
        response = await _post(f"https://127.0.0.1:{secure.port}/", ONE_ADDRESS)
        assert "ertificate" in (response.error or "")
        assert len(secure.calls) == 1


async def test_proxies_of_the_environment_are_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert (await _post(receiver.url)).is_success
        assert proxy.calls == []
