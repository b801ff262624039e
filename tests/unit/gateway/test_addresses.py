"""From where a client comes, and by what it is counted."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.gateway.requests.addresses import (
    MAX_HOPS,
    client_address,
    forwarded_secure,
    is_trusted,
    limit_key,
    own_hosts,
    parse,
)

PROXIES = (ip_network("10.0.0.0/8"), ip_network("::1/128"), ip_network("fd00::/8"))
PROXY = "10.0.0.1"

addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


# ── one address ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"), (" 192.0.2.1\t", "192.0.2.1"), ("192.0.2.1:80", "192.0.2.1"),
        ("192.0.2.1:65535", "192.0.2.1"), ('"192.0.2.1:80"', "192.0.2.1"), ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8:0::1", "2001:db8::1"), ("[2001:db8::1]", "2001:db8::1"), ("[2001:db8::1]:443", "2001:db8::1"),
        ('"[2001:db8::1]:443"', "2001:db8::1"), ("fe80::1%eth0", "fe80::1"), ("[fe80::1%25eth0]:80", "fe80::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"), ("::ffff:c000:201", "192.0.2.1"), ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
        ("::1", "::1"),
    ],
)  # fmt: skip
def test_an_address_is_read_as_proxies_write_it(text: str, address: str) -> None:
    assert str(parse(text)) == address


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "unknown", "_hidden", "localhost", "192.0.2", "192.0.2.1.1", "192.0.2.256", "0192.0.2.1", "192.0.2.1:",
        "192.0.2.1:x", "192.0.2.1:65536", "192.0.2.1:-1", "192.0.2.1%eth0", "192.0.2.1/24", "[192.0.2.1]",
        "[192.0.2.1]:80", "[2001:db8::1", "2001:db8::1]", "[2001:db8::1]80", "[2001:db8::1]:x", "[]", "[]:80", ":::1",
        "1", "3221225985", "0x7f.1", "１92.0.2.1", "192.0.2.1;x", "for=192.0.2.1", "192.0.2.1, 192.0.2.2",
        "1" * 500, "[" + ":" * 500,
    ],
)  # fmt: skip
def test_garbage_is_no_address(text: str) -> None:
    assert parse(text) is None


@given(st.text(max_size=100))
def test_any_text_can_be_asked_about(text: str) -> None:
    found = parse(text)
    assert found is None or isinstance(found, IPv4Address | IPv6Address)
    assert len(limit_key(text)) <= 80


# ── behind proxies ───────────────────────────────────────────────────────────────────────────────────────────────


def test_without_trusted_proxies_a_header_means_nothing() -> None:
    assert client_address("192.0.2.1", ["198.51.100.7"], ()) == "192.0.2.1"


def test_what_a_peer_that_is_no_trusted_proxy_says_means_nothing() -> None:
    assert client_address("192.0.2.1", ["198.51.100.7, 10.0.0.2"], PROXIES) == "192.0.2.1"


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ([], PROXY),
        ([""], PROXY),
        (["192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1:5000"], "192.0.2.1"),
        (["[2001:db8::1]:5000"], "2001:db8::1"),
        (["::ffff:192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        (["192.0.2.1,10.0.0.2 , 10.0.0.3"], "192.0.2.1"),
        (["198.51.100.7, 192.0.2.1, 10.0.0.2"], "192.0.2.1"),  # the left one is the client's own invention
        (["10.9.9.9, 192.0.2.1"], "192.0.2.1"),
        (["198.51.100.7", "192.0.2.1", "10.0.0.2"], "192.0.2.1"),  # several lines are one list
        (["198.51.100.7", "192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),  # all are proxies: the first of them asked
        (["192.0.2.1, garbage, 10.0.0.2"], "10.0.0.2"),
        (["192.0.2.1, , 10.0.0.2"], "10.0.0.2"),
        (["192.0.2.1, unknown"], PROXY),
        (["192.0.2.1,"], PROXY),
        (["fd00::5, 10.0.0.2"], "fd00::5"),
        (["192.0.2.1, fd00::5"], "192.0.2.1"),
    ],
)
def test_the_first_from_the_right_that_is_no_proxy_is_the_client(forwarded: list[str], client: str) -> None:
    assert client_address(PROXY, forwarded, PROXIES) == client


def test_a_proxy_may_come_over_mapped_ipv4_or_with_a_zone() -> None:
    assert client_address("::ffff:10.0.0.1", ["192.0.2.1"], PROXIES) == "192.0.2.1"
    assert client_address("fd00::1%eth0", ["192.0.2.1"], PROXIES) == "192.0.2.1"


@pytest.mark.parametrize("hops", [MAX_HOPS - 1, MAX_HOPS, MAX_HOPS + 1, 10_000])
def test_only_so_many_hops_are_looked_at(hops: int) -> None:
    forwarded = ", ".join(["192.0.2.1", *["10.0.0.2"] * hops])
    assert client_address(PROXY, [forwarded], PROXIES) == ("192.0.2.1" if hops < MAX_HOPS else "10.0.0.2")


@given(
    st.lists(addresses.map(str), max_size=5), addresses, st.lists(st.sampled_from(["10.0.0.2", "fd00::7"]), max_size=5)
)
def test_what_a_client_invents_never_moves_it(invented: list[str], client: object, proxies: list[str]) -> None:
    real = str(client)
    if is_trusted(real, PROXIES):
        return
    said = ", ".join([*invented, real, *proxies])
    assert client_address(PROXY, [said], PROXIES) == str(parse(real))


@given(st.text(max_size=60), st.lists(st.text(max_size=60), max_size=4))
def test_any_header_can_come(peer: str, forwarded: list[str]) -> None:
    assert len(client_address(peer, forwarded, PROXIES)) <= 80
    assert len(client_address(PROXY, forwarded, PROXIES)) <= 80


@given(st.lists(st.text(max_size=30), max_size=4))
def test_no_header_moves_a_peer_that_is_not_trusted(forwarded: list[str]) -> None:
    assert client_address("192.0.2.1", forwarded, PROXIES) == "192.0.2.1"


# ── TLS at a proxy ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("said", "secure"),
    [
        (["https"], True), (["HTTPS "], True), (["wss"], True), (["http"], False), (["ws"], False),
        (["http, https"], True), (["https, http"], False), (["http", "https"], True), ([], False), (["x"], False),
    ],
)  # fmt: skip
def test_the_nearest_trusted_proxy_says_whether_it_was_tls(said: list[str], secure: bool) -> None:
    assert forwarded_secure(PROXY, said, PROXIES, secure=False) is secure


def test_nobody_else_does() -> None:
    assert not forwarded_secure("192.0.2.1", ["https"], PROXIES, secure=False)
    assert forwarded_secure("192.0.2.1", ["http"], PROXIES, secure=True)
    assert not forwarded_secure(PROXY, ["https"], (), secure=False)
    assert forwarded_secure(PROXY, [], PROXIES, secure=True)


@pytest.mark.parametrize(
    ("peer", "hosts", "host", "port", "own"),
    [
        (PROXY, ["inside:3000"], ["a.example"], [], ["inside:3000", "a.example"]),
        (PROXY, ["a.example"], [], [], ["a.example"]),
        (PROXY, ["a.example"], [], ["8443"], ["a.example", "a.example:8443"]),
        (PROXY, ["a.example:1"], ["b.example"], ["8443"], ["a.example:1", "b.example", "b.example:8443"]),
        (PROXY, ["[::1]"], [], ["8443"], ["[::1]", "[::1]:8443"]),
        (PROXY, ["a.example"], ["evil.com, b.example"], ["x"], ["a.example", "b.example"]),
        (
            PROXY,
            ["a.example"],
            ["evil.com", "b.example"],
            ["1, 2"],
            ["a.example", "b.example", "a.example:2", "b.example:2"],
        ),
        (PROXY, ["a.example", "a.example"], ["b.example"], [], ["b.example"]),
        ("192.0.2.1", ["a.example"], ["evil.com"], ["8443"], ["a.example"]),
        ("192.0.2.1", [], ["evil.com"], ["8443"], []),
        ("", ["a.example"], ["evil.com"], [], ["a.example"]),
    ],
)
def test_a_trusted_proxy_says_under_which_name_the_client_came_and_nobody_else(
    peer: str, hosts: list[str], host: list[str], port: list[str], own: list[str]
) -> None:
    assert own_hosts(peer, hosts, host, port, PROXIES) == own


# ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"), ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"), ("::1", "::/64"), ("", ""), ("unknown", "unknown"),
    ],
)  # fmt: skip
def test_ipv4_counts_as_a_whole_and_ipv6_by_its_first_64_bits(address: str, key: str) -> None:
    assert limit_key(address) == key


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_whoever_has_the_same_64_bits_counts_together(address: IPv6Address, low: int) -> None:
    neighbour = IPv6Address((int(address) >> 64 << 64) | low)
    if address.ipv4_mapped is None and neighbour.ipv4_mapped is None:
        assert limit_key(str(address)) == limit_key(str(neighbour))
