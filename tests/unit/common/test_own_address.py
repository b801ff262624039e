"""Loopback is this machine's, and addresses of documentation are not."""

from __future__ import annotations

import pytest

from watchout.common.toolbox.own_address import is_own_address

#: Of documentation (RFC 5737, RFC 3849), or beyond it.
FOREIGN = ("203.0.113.1", "192.0.2.1", "2001:db8::1", "2001:db8::7")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1"])
def test_loopback_is_of_every_machine(address: str) -> None:
    assert is_own_address(address)


@pytest.mark.parametrize("address", FOREIGN)
def test_other_addresses_are_not(address: str) -> None:
    assert not is_own_address(address)
