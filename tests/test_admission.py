from __future__ import annotations

import pytest

from wse.admission import Addresses, Origins, Proxies

# -- origins ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://app.example.com", "app.example.com"),
        ("http://app.example.com", "app.example.com"),
        ("http://localhost:4200", "localhost:4200"),
        ("https://app.example.com", "app.example.com:443"),
        ("https://app.example.com:443", "app.example.com"),
        ("https://APP.example.com", "app.EXAMPLE.com"),
        ("http://[::1]:4200", "[::1]:4200"),
        (None, "app.example.com"),
        (None, None),
    ],
)
def test_pages_of_the_own_host_and_what_is_no_page_may_connect(
    origin: str | None, host: str | None
) -> None:
    assert Origins().allow(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "app.example.com"),
        ("https://app.example.com.evil.example", "app.example.com"),
        ("https://evil.example/app.example.com", "evil.example"),
        ("http://localhost:3000", "localhost:4200"),
        ("https://app.example.com:8443", "app.example.com"),
        ("http://app.example.com:443", "app.example.com"),
        ("https://user@app.example.com", "app.example.com:1"),
        ("https://app.example.com", None),
        ("https://app.example.com", ""),
        ("null", "app.example.com"),
        ("", "app.example.com"),
        ("https://", "app.example.com"),
        ("http://none", None),
        ("https://app.example.com:99999", "app.example.com"),
        ("file://app.example.com", "app.example.com"),
        ("app.example.com", "app.example.com"),
    ],
)
def test_pages_of_other_hosts_may_not(origin: str, host: str | None) -> None:
    assert not Origins().allow(origin, host)


@pytest.mark.parametrize(
    ("allowed", "origin", "answer"),
    [
        ("https://app.example.com", "https://app.example.com", True),
        ("https://app.example.com", "https://app.example.com:443", True),
        ("https://app.example.com", "http://app.example.com", False),
        ("http://localhost:3000", "http://localhost:3000", True),
        ("http://localhost:3000", "http://localhost:3001", False),
        ("null", "null", True),
        ("*", "https://anything.example", True),
        ("*", "null", True),
    ],
)
def test_listed_origins_may_connect_from_anywhere(allowed: str, origin: str, answer: bool) -> None:
    assert Origins([allowed]).allow(origin, "api.example.com") is answer


@pytest.mark.parametrize(
    ("origin", "answer"),
    [
        ("http://localhost:5173", True),
        ("https://app.localhost", True),
        ("http://127.0.0.1:3000", True),
        ("http://[::1]:3000", True),
        ("http://localhost.evil.example", False),
        ("http://evil-localhost", False),
        ("http://127.0.0.1.evil.example", False),
        ("http://192.168.1.5:5173", False),
        ("null", False),
    ],
)
def test_while_developing_pages_of_localhost_may_connect(origin: str, answer: bool) -> None:
    origins = Origins()
    assert not origins.allow(origin, "localhost:4200")
    origins.localhost = True
    assert origins.allow(origin, "localhost:4200") is answer


@pytest.mark.parametrize(
    "origin",
    [
        *["app.example.com", "https://", "https://a/path", "", "https://a:x"],
        *["https://*.example.com", "https://a ", "https://a,https://b c"],
    ],
)
def test_what_is_no_origin_cannot_be_listed(origin: str) -> None:
    with pytest.raises(ValueError, match="origin"):
        Origins([origin])


# -- proxies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "told", "address"),
    [
        ("10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "198.51.100.1, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("10.0.0.1", "10.0.0.9, 10.0.0.2", "10.0.0.9"),
        ("10.0.0.1", "203.0.113.7:5000", "203.0.113.7"),
        ("10.0.0.1", "[2001:db8::1]:5000", "2001:db8::1"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7, nonsense", "10.0.0.1"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        (None, "198.51.100.1", None),
    ],
)
def test_the_last_address_that_is_no_proxys(
    peer: str | None, told: str, address: str | None
) -> None:
    proxies = Proxies("10.0.0.0/8")
    assert proxies.peer(peer, {"x-forwarded-for": told}) == address


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("for=203.0.113.7", "203.0.113.7"),
        ('for=198.51.100.1, For="[2001:db8::1]:4711";proto=https;by=10.0.0.1', "2001:db8::1"),
        ("proto=https", "10.0.0.1"),
        ("for=_hidden", "10.0.0.1"),
    ],
)
def test_the_standard_header(told: str, address: str) -> None:
    proxies = Proxies("10.0.0.0/8", header="Forwarded")
    assert proxies.peer("10.0.0.1", {"forwarded": told}) == address


def test_a_proxy_behind_a_unix_socket() -> None:
    headers = {"x-forwarded-for": "203.0.113.7"}
    assert Proxies("unix").peer(None, headers) == "203.0.113.7"
    assert Proxies("10.0.0.0/8").peer(None, headers) is None
    assert Proxies("unix").peer("10.0.0.1", headers) == "10.0.0.1"


def test_the_header_that_is_not_named_is_not_believed() -> None:
    headers = {"forwarded": "for=198.51.100.1"}
    assert Proxies("10.0.0.0/8").peer("10.0.0.1", headers) == "10.0.0.1"


@pytest.mark.parametrize(
    ("networks", "header"),
    [(["10.0.0.1/8"], "forwarded"), (["::1"], "x-real-ip"), ([], "forwarded")],
)
def test_what_cannot_be_trusted(networks: list[str], header: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Proxies(*networks, header=header)


# -- addresses -----------------------------------------------------------------------------------


def test_an_address_has_so_many_connections() -> None:
    addresses = Addresses(2)
    for _ in range(2):
        assert not addresses.full("192.0.2.1")
        addresses.add("192.0.2.1")
    assert addresses.full("192.0.2.1")
    assert not addresses.full("192.0.2.2")
    addresses.remove("192.0.2.1")
    assert not addresses.full("192.0.2.1")
    addresses.remove("192.0.2.1")
    assert len(addresses) == 0


def test_of_ipv6_a_network_counts_as_one_address() -> None:
    addresses = Addresses(1)
    addresses.add("2001:db8:1:2:3::4%eth0")
    assert addresses.full("2001:db8:1:2:ffff::1")
    assert not addresses.full("2001:db8:1:3::4")


def test_an_ipv4_address_counts_by_itself_also_where_it_is_written_as_ipv6() -> None:
    addresses = Addresses(1)
    addresses.add("::ffff:192.0.2.1")
    assert addresses.full("192.0.2.1")
    assert not addresses.full("::ffff:192.0.2.2")


def test_who_has_no_address_is_not_counted() -> None:
    addresses = Addresses(1)
    addresses.add(None)
    assert not addresses.full(None)
    addresses.remove(None)
    assert len(addresses) == 0


def test_without_a_bound_nobody_is_counted() -> None:
    addresses = Addresses(None)
    addresses.add("192.0.2.1")
    assert not addresses.full("192.0.2.1")
    assert len(addresses) == 0
    addresses.remove("192.0.2.1")
