"""Which URLs are taken when a caller names them: for an endpoint and for one job."""

import asyncio
import socket

import httpx2
import pytest

from api.settings import ApiSettings
from api.webhooks.url_check import WebhookUrlCheck
from storage.network.errors import WebhookUrlRefused
from storage.network.url_policy import Policy
from tests.api.examples import CALLS, NAMES, Call
from tests.api.fake_worker import FakeWorker

# None of them is asked of a name server: they are addresses, or refused before.
REFUSED = [
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://0/",
    "https://0.0.0.0/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://100.64.0.1/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://[::]/",
    "https://[::1]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fd00::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://localhost/",
    "https://app.localhost/",
    "http://93.184.215.14/",
    "https://93.184.215.14:22/",
    "https://93.184.215.14:99999/",
    "https://93.184.215.14:0/",
    "https://me:secret@93.184.215.14/",
    "https://93.184.215.14@127.0.0.1/",
    "https://93.184.215.14\\@127.0.0.1/",
    "https://93.184.215.14\t/",
    "https://b\u00fccher.example/",
    "https://\u2460.0.0.1/",
    "//93.184.215.14/",
    "93.184.215.14",
    "ftp://93.184.215.14/",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "https://",
    "https:///path",
    "https://?",
]


def test_no_endpoint_leads_to_where_the_public_does_not(http: httpx2.Client) -> None:
    for url in REFUSED:
        refused = http.post("/v1/webhook_endpoints", json={"name": "x", "url": url, "event_types": []})
        assert refused.status_code == 400, url
        error = refused.json()["error"]
        assert (error["param"], error["code"]) == ("url", "webhook_url_refused"), url


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_a_job_with_a_target_that_is_refused_is_no_job(http: httpx2.Client, worker: FakeWorker, call: Call) -> None:
    for url in ("https://10.0.0.1/", "http://127.0.0.1:8000/", "https://[::1]/"):
        refused = call.post(http, webhook={"url": url})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "webhook.url"

    assert worker.num_claimed == 0


def test_an_endpoint_moves_to_no_place_where_it_could_not_be_made(http: httpx2.Client) -> None:
    made = http.post("/v1/webhook_endpoints", json={"name": "x", "url": "https://93.184.215.14/"}).json()

    refused = http.post(f"/v1/webhook_endpoints/{made['id']}", json={"url": "https://10.0.0.1/"})

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "url")
    assert http.get(f"/v1/webhook_endpoints/{made['id']}").json()["url"] == made["url"]


def test_what_an_operator_allows_is_taken(http: httpx2.Client) -> None:
    for url in ("http://10.1.2.3:8080/hook", "https://[fd00::5]/"):
        made = http.post("/v1/webhook_endpoints", json={"name": "x", "url": url})
        assert made.status_code == (200 if "10.1.2.3" in url else 400), made.text


@pytest.fixture
def settings(request: pytest.FixtureRequest, settings: ApiSettings) -> ApiSettings:
    """The defaults, but for the test of the operator's list."""
    is_allowed = "operator" in request.node.name
    return settings.model_copy(update={"webhook_allow": ("10.1.0.0/16",)}) if is_allowed else settings


async def _judge(addresses: list[str] | Exception, url: str = "https://example.com/") -> None:
    async def resolve(host: str, port: int) -> list[str]:
        if isinstance(addresses, Exception):
            raise addresses
        return addresses

    await WebhookUrlCheck(Policy, resolve).judge(url, param="url")


async def test_every_address_of_a_name_is_judged() -> None:
    await _judge(["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
    with pytest.raises(WebhookUrlRefused):
        await _judge(["93.184.215.14", "127.0.0.1"])


async def test_a_name_that_does_not_exist_is_refused() -> None:
    with pytest.raises(WebhookUrlRefused, match="has no address"):
        await _judge(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))


async def test_a_name_that_no_server_answers_for_now_is_judged_when_something_is_sent() -> None:
    await _judge(socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))


class SlowNames:
    """A resolver that counts lookups and never answers for names of `slow.example`."""

    def __init__(self) -> None:
        self.num_lookups = 0
        self.may_answer = asyncio.Event()

    async def resolve(self, host: str, port: int) -> list[str]:
        self.num_lookups += 1
        if host.endswith("slow.example"):
            await self.may_answer.wait()
        return ["93.184.215.14"]


async def test_a_verdict_is_kept_for_a_minute() -> None:
    names, now = SlowNames(), [0.0]
    check = WebhookUrlCheck(Policy, names.resolve, clock=lambda: now[0])

    for path in ("a", "b"):
        await check.judge(f"https://example.com/{path}", param="url")
    assert names.num_lookups == 1

    now[0] = 61.0
    await check.judge("https://example.com/", param="url")
    assert names.num_lookups == 2


async def test_slow_names_of_one_owner_delay_nobody_else() -> None:
    names = SlowNames()
    check = WebhookUrlCheck(Policy, names.resolve)
    slow = [
        asyncio.create_task(check.judge(f"https://{number}.slow.example/", param="url", owner="alice"))
        for number in range(20)
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    async with asyncio.timeout(1):
        await check.judge("https://example.com/", param="url", owner="bob")

    # Four lookups are under way; the other names are judged before delivery.
    assert sum(not task.done() for task in slow) == 4
    assert names.num_lookups == 5
    names.may_answer.set()
    await asyncio.gather(*slow)


async def test_requests_for_one_host_share_a_lookup() -> None:
    names = SlowNames()
    check = WebhookUrlCheck(Policy, names.resolve)
    tasks = [asyncio.create_task(check.judge("https://slow.example/", param="url", owner=str(n))) for n in range(9)]
    await asyncio.sleep(0)
    names.may_answer.set()
    await asyncio.gather(*tasks)

    assert names.num_lookups == 1
