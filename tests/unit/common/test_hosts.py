"""Host names and addresses, as settings and addresses write them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.toolbox.hosts import bracketed, checked_host, is_unspecified


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("10.0.0.5", "10.0.0.5"),
        ("Host-A.Example.com", "host-a.example.com"),
        ("app_1", "app_1"),
        ("[2001:DB8::7]", "2001:db8::7"),
        ("a" * 63, "a" * 63),
        ("", None),
        ("a" * 64, None),
        (".".join(["a" * 60] * 5), None),
        ("1.2.3", None),
        ("1.2.3.256", None),
        ("2001:db8::7", None),
        ("[fe80::1%eth0]", None),
        ("[10.0.0.5]", None),
        ("a..b", None),
        ("-a", None),
        ("a-", None),
        ("a.", None),
        ("a b", None),
        ("a/b", None),
        ("ä", None),
        ("٣", None),
        ("a\n", None),
    ],
)
def test_hosts(text: str, host: str | None) -> None:
    assert checked_host(text) == host


@given(st.ip_addresses())
def test_every_address_is_a_host_with_and_without_brackets(address: IPv4Address | IPv6Address) -> None:
    assert checked_host(bracketed(str(address))) == str(address)
    assert is_unspecified(str(address)) == address.is_unspecified


@given(st.text(max_size=300))
def test_what_is_taken_can_be_written_and_taken_again(text: str) -> None:
    host = checked_host(text)
    assert host is None or checked_host(bracketed(host)) == host
