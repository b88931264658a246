"""Webhooks go to the public internet, and to the networks that the operator names: whatever a URL says, and whatever DNS says later."""

import socket
import threading
from ipaddress import ip_address
from typing import Any

import pytest

from gateway import outbound
from gateway.courier import HttpCourier
from gateway.outbound import URL_SIZE_MAX, Guard, NotAllowed, is_public
from gateway.ports import Receipt
from tests.contract import raw_server as wire
from tests.contract.raw_server import raw_server
from tests.gateway.doubles import PATIENCE_S

PUBLIC = ["93.184.216.34", "8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "2a00:1450:4001::200e"]
NOT_PUBLIC = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254"),
    *("169.254.169.254", "169.254.0.1", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1"),
    *("192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255"),
    *("240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:93.184.216.34", "::ffff:169.254.169.254", "64:ff9b::7f00:1"),
    *("64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:7f00:1::", "2001:db8::1", "2002:7f00:1::"),
    *("2002:a9fe:a9fe::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1"),
    *("ff02::1", "ff0e::1"),
]


class Dns:
    """Names, and where they are now; what is not a name is looked up as the system does."""

    def __init__(self, **names: list[str]) -> None:
        self.names = {name.replace("_", "."): addresses for name, addresses in names.items()}

    def __call__(self, host: str, port: int) -> list[Any]:
        found = []
        for address in self.names.get(host, [host]):
            found += socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        return found


@pytest.mark.parametrize(("addresses", "public"), [(PUBLIC, True), (NOT_PUBLIC, False)], ids=["public", "not-public"])
def test_what_is_public(addresses: list[str], public: bool):
    assert [address for address in addresses if is_public(ip_address(address)) is not public] == []


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_called(address: str):
    Guard([]).admits(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
async def test_no_other_address_is_called_neither_at_creation_nor_later(address: str):
    guard = Guard([], lookup=Dns(innocent_example=["93.184.216.34", address]))
    with pytest.raises(NotAllowed):
        guard.open_socket((socket.AF_INET6, socket.SOCK_STREAM, 0, "", (address, 80)))
    fault = await guard.check("http://innocent.example/")
    assert fault is not None
    assert "not a public address" in fault
    guard.close()


@pytest.mark.parametrize(
    ("networks", "address", "good"),
    [
        (["127.0.0.0/8"], "127.0.0.1", True),
        (["127.0.0.0/8"], "::1", False),
        (["127.0.0.0/8"], "::ffff:127.0.0.1", False),
        (["127.0.0.0/8"], "64:ff9b::7f00:1", False),
        (["127.0.0.0/8"], "2002:7f00:1::", False),
        (["127.0.0.0/8"], "10.0.0.1", False),
        (["10.1.0.0/16", "::1/128"], "10.1.255.255", True),
        (["10.1.0.0/16", "::1/128"], "10.2.0.0", False),
        (["10.1.0.0/16", "::1/128"], "::1", True),
        (["::ffff:0:0/96"], "::ffff:10.0.0.1", True),
    ],
)
def test_a_network_that_is_named_is_called_and_not_its_disguises(networks: list[str], address: str, good: bool):
    guard = Guard(networks)
    if good:
        guard.admits(address)
    else:
        with pytest.raises(NotAllowed):
            guard.admits(address)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://93.184.216.34/", "expected an http:// or https:// URL"),
        ("file:///etc/passwd", "expected an http:// or https:// URL"),
        ("//93.184.216.34/", "expected an http:// or https:// URL"),
        ("http://", "expected an http:// or https:// URL"),
        ("http://a..b/", "expected an http:// or https:// URL"),
        ("http://[::1", "expected an http:// or https:// URL"),
        ("http://93.184.216.34:0/", "expected an http:// or https:// URL"),
        ("http://93.184.216.34:99999/", "expected an http:// or https:// URL"),
        ("http://[fe80::1%25eth0]/", "expected an http:// or https:// URL"),
        ("http://user@93.184.216.34/", "a user or password"),
        ("http://:password@93.184.216.34/", "a user or password"),
        ("http://93.184.216.34/" + "x" * URL_SIZE_MAX, "printable ASCII"),
        ("http://93.184.216.34/é", "printable ASCII"),
        ("http://93.184.216.34/a b", "printable ASCII"),
        ("http://93.184.216.34/\r\nHost: x", "printable ASCII"),
        ("http://nowhere.example/", "nowhere.example cannot be resolved"),
        ("http://127.0.0.1/", "127.0.0.1 is at 127.0.0.1: not a public address"),
        ("http://[::1]/", "::1 is at ::1: not a public address"),
        ("http://[::ffff:169.254.169.254]/", "not a public address"),
    ],
)
async def test_a_url_that_may_not_be_called_is_refused_with_the_reason(url: str, says: str):
    guard = Guard([], lookup=Dns())
    fault = await guard.check(url)
    assert fault is not None
    assert says in fault
    guard.close()


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0"])
async def test_other_ways_to_write_an_address_are_no_way_around(host: str):
    guard = Guard([])  # the system's own reading of them
    assert await guard.check(f"http://{host}/") is not None
    async with raw_server() as server:
        courier = HttpCourier(timeout_ms=5_000, guard=guard)
        receipt = await courier.post(server.url.replace("127.0.0.1", host), {}, b"")
        assert receipt.status is None
        assert server.connections == 0
        await courier.close()
    guard.close()


async def test_good_urls_may_be_called():
    guard = Guard([], lookup=Dns(merchant_example=["93.184.216.34", "2606:4700:4700::1111"]))
    for url in ("https://merchant.example/hooks?shop=1", "http://93.184.216.34:8080", "http://[2606:4700:4700::1111]/"):
        assert await guard.check(url) is None
    guard.close()


async def test_a_name_that_moves_to_an_inner_address_after_it_was_checked_is_not_called():
    """DNS rebinding."""
    dns = Dns(rebinding_example=["93.184.216.34"])
    guard = Guard([], lookup=dns)
    async with raw_server() as server:
        url = server.url.replace("127.0.0.1", "rebinding.example")
        assert await guard.check(url) is None
        dns.names["rebinding.example"] = ["127.0.0.1"]
        courier = HttpCourier(timeout_ms=5_000, guard=guard)
        receipt = await courier.post(url, {}, b"secret")
        assert receipt.status is None
        assert "not a public address" in (receipt.error or "")
        assert server.connections == 0
        await courier.close()
    guard.close()


async def test_of_several_addresses_only_those_that_may_be_called_are(monkeypatch: pytest.MonkeyPatch):
    guard = Guard(["127.0.0.0/8"], lookup=Dns(mixed_example=["::1", "10.0.0.1", "127.0.0.1"]))
    async with raw_server() as server:
        server.behaviour = wire.http(200)
        connected: list[str] = []
        admits = guard.admits
        monkeypatch.setattr(guard, "admits", lambda address: (admits(address), connected.append(address)))
        courier = HttpCourier(timeout_ms=5_000, guard=guard)
        assert await courier.post(server.url.replace("127.0.0.1", "mixed.example"), {}, b"") == Receipt(200)
        assert connected == ["127.0.0.1"]
        await courier.close()
    guard.close()


async def test_a_redirect_leads_nowhere():
    guard = Guard(["127.0.0.0/8"])
    async with raw_server() as server, raw_server() as inner:
        server.behaviour = wire.http(307, headers=f"Location: {inner.url}/\r\n")
        courier = HttpCourier(timeout_ms=5_000, guard=guard)
        assert await courier.post(server.url, {}, b"") == Receipt(307)
        assert inner.connections == 0
        await courier.close()
    guard.close()


async def test_while_nobody_answers_in_time_the_last_answer_serves(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outbound, "LOOKUPS_MAX", 1)
    answer = threading.Event()
    dns = Dns(quick_example=["93.184.216.34"])

    def lookup(host: str, port: int) -> Any:
        if host == "slow.example":
            answer.wait(PATIENCE_S)
        return dns(host, port)

    guard = Guard([], lookup=lookup)
    before = await guard.resolver.resolve("quick.example", 443)
    monkeypatch.setattr(outbound, "LOOKUP_S_MAX", 0.01)
    assert await guard.check("http://slow.example/") is not None  # and goes on holding the only thread
    assert await guard.resolver.resolve("quick.example", 443) == before
    assert await guard.check("https://quick.example/") is None
    answer.set()
    guard.close()


async def test_a_name_server_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outbound, "LOOKUP_S_MAX", 0.01)
    answer = threading.Event()

    def lookup(host: str, port: int) -> list[Any]:
        answer.wait(PATIENCE_S)
        return []

    guard = Guard([], lookup=lookup)
    assert await guard.check("http://slow.example/") == "slow.example cannot be resolved (no answer within 0.01 s)"
    answer.set()
    guard.close()
