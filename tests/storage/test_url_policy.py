"""Where webhooks may go: judged by the URL alone, then by every address of its host."""

import ipaddress

import pytest

from storage.network.errors import WebhookUrlRefused
from storage.network.resolver import Resolver
from storage.network.url_policy import Policy, Resolve, host_of, is_allow_entry, judge, judge_address, resolve_and_judge

PUBLIC = Policy()
HTTP = Policy(allows_http=True)
LOOPBACK = Policy(allows_loopback=True)
INTERNAL = Policy(allowed=("hooks.internal", "*.corp.example", "10.1.0.0/16", "fd00:1::/32"))
ANYWHERE = "https://example.com/hook"


def _resolving(*addresses: str) -> Resolve:
    async def resolve(host: str, port: int) -> list[str]:
        return list(addresses)

    return resolve


@pytest.mark.parametrize(
    "url", [ANYWHERE, "https://EXAMPLE.com.", "https://example.com:443/a?b=c#d", "https://8.8.8.8/x"]
)
def test_https_on_its_port_is_open_to_public_receivers(url: str) -> None:
    target = judge(url, PUBLIC)
    assert (target.scheme, target.port, target.needs_trust) == ("https", 443, False)
    assert target.host in ("example.com", "8.8.8.8")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https:///path",
        "https://",
        "https://:443/",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://example.com\\@127.0.0.1/",
        "https://exa\nmple.com/",
        "https://example.com/a b",
        "https://exämple.com/",
        "https://example.com:0x1bb/",
        "https://example.com:99999/",
        "https://example.com:0/",
        "https://exa%6dple.com/",
        "https://[::1/",
        "https://[v1.x]/",
        "https://a..b/",
        f"https://{'a' * 64}.com/",
        "https://example.com/" + "a" * 2048,
        "http://example.com/",
        "https://example.com:8443/",
        "https://example.com:22/",
    ],
)
def test_other_forms_are_refused(url: str) -> None:
    with pytest.raises(WebhookUrlRefused) as refused:
        judge(url, PUBLIC)
    assert refused.value.param == "url"


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.8.8.8",
        "168.63.129.16",
        "169.254.169.254",
        "172.31.255.255",
        "192.0.0.192",
        "192.168.1.1",
        "198.18.0.1",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::8.8.8.8",
        "100::1",
        "2001::1",
        "2001:0:7f00:1::",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
async def test_addresses_that_are_not_public_are_refused_by_name_and_by_number(address: str) -> None:
    shown = f"[{address}]" if ":" in address else address
    with pytest.raises(WebhookUrlRefused, match="no public address"):
        judge(f"https://{shown}/", PUBLIC)
    with pytest.raises(WebhookUrlRefused, match="no public address"):
        await resolve_and_judge(judge(ANYWHERE, PUBLIC), PUBLIC, _resolving("8.8.8.8", address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"]
)
async def test_public_addresses_are_reached(address: str) -> None:
    assert await resolve_and_judge(judge(ANYWHERE, PUBLIC), PUBLIC, _resolving(address)) == [address]


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f.1", "127.1", "0177.0.0.1", "localhost", "localhost.", "LOCALHOST"]
)
async def test_other_names_of_this_machine_are_found_out_by_their_address(host: str) -> None:
    with pytest.raises(WebhookUrlRefused):
        await resolve_and_judge(judge(f"https://{host}/", PUBLIC), PUBLIC, Resolver(1).resolve)


async def test_a_host_without_address_is_refused() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise OSError("no such host")

    for resolving in (resolve, _resolving(), _resolving("not-an-address")):
        with pytest.raises(WebhookUrlRefused):
            await resolve_and_judge(judge(ANYWHERE, PUBLIC), PUBLIC, resolving)


async def test_a_setting_opens_http_on_its_port_to_public_receivers_only() -> None:
    assert not judge("http://example.com/", HTTP).needs_trust
    with pytest.raises(WebhookUrlRefused):
        judge("http://example.com:8080/", HTTP)
    with pytest.raises(WebhookUrlRefused):
        await resolve_and_judge(judge("http://example.com/", HTTP), HTTP, _resolving("127.0.0.1"))


async def test_the_open_platform_tells_its_own_machine_on_any_port() -> None:
    for url in ("http://127.0.0.1:8123/hook", "http://[::1]:8123/", "http://localhost:8123/", "https://127.0.0.2/"):
        target = judge(url, LOOPBACK)
        assert await resolve_and_judge(target, LOOPBACK, Resolver(1).resolve)
    for url in ("http://10.0.0.1:8123/", "http://169.254.169.254/"):
        with pytest.raises(WebhookUrlRefused):
            judge(url, LOOPBACK)
    with pytest.raises(WebhookUrlRefused):
        await resolve_and_judge(judge("http://example.com:8123/", LOOPBACK), LOOPBACK, _resolving("1.1.1.1"))


async def test_internal_receivers_are_named_by_host_or_network() -> None:
    private = ipaddress.ip_address("192.168.0.9")
    for url in ("http://hooks.internal:9000/", "https://a.b.corp.example:1/"):
        judge_address(judge(url, INTERNAL), private, INTERNAL)
    for url in ("https://corp.example/", "https://evilcorp.example/", "https://hooks.internal.example/"):
        with pytest.raises(WebhookUrlRefused):
            judge_address(judge(url, INTERNAL), private, INTERNAL)
    assert judge("http://10.1.2.3:9000/", INTERNAL).port == 9000
    named = judge("http://other.example:9000/", INTERNAL)
    assert await resolve_and_judge(named, INTERNAL, _resolving("10.1.0.7", "fd00:1::7"))
    with pytest.raises(WebhookUrlRefused):
        await resolve_and_judge(named, INTERNAL, _resolving("10.1.0.7", "10.2.0.7"))
    with pytest.raises(WebhookUrlRefused):
        judge("http://10.2.0.1/", INTERNAL)


def test_entries_of_the_list_are_hosts_and_networks() -> None:
    assert all(is_allow_entry(text) for text in (*INTERNAL.allowed, "localhost", "10.0.0.1", "::1"))
    assert not any(is_allow_entry(text) for text in ("", "*", "*.", "10.0.0.1/8", "a b", "http://x", "x:80", "a*.b"))


def test_the_host_of_a_url_has_its_port() -> None:
    assert host_of("https://Example.com/a") == "example.com"
    assert host_of("http://[::1]:81/a") == "[::1]:81"
