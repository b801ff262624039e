"""Which addresses the router may call."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.router.webhook.egress import is_public


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:80ff:fffe", "fe80::1",
        "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1", "localhost", "", "1.2.3", "0x7f.1",
    ],
)  # fmt: skip
def test_what_is_not_on_the_public_internet_may_not_be_called(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_what_is_public_may_be_called(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_in_other_clothes_is_judged_as_itself(address: IPv4Address) -> None:
    number = int(address)
    public = is_public(str(address))
    for prefix in (0xFFFF << 32, 0x64FF9B << 96, 0):
        assert is_public(str(IPv6Address(prefix | number))) is public
    assert is_public(str(IPv6Address(0x2002 << 112 | number << 80))) is public


@given(st.text(max_size=40))
def test_no_text_raises(text: str) -> None:
    assert is_public(text) in (True, False)
