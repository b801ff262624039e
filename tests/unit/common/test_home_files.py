"""The names of the files in the home: which are watchout's."""

from __future__ import annotations

import pytest

from watchout.common.home_files import is_home_file, port_lock, port_of


@pytest.mark.parametrize("name", ["control", "frames.in", "router.lock", "sessions.db", "port-3000", "name-gateway-2"])
def test_a_file_of_watchout_is_known_by_its_name(name: str) -> None:
    assert is_home_file(name)


@pytest.mark.parametrize("name", ["", "notes.txt", "control2", "sessions.db.bak", "report-1"])
def test_any_other_file_is_not_watchouts(name: str) -> None:
    assert not is_home_file(name)


def test_the_port_of_a_lock_is_read_from_its_name() -> None:
    assert port_of(port_lock(3000)) == 3000
    assert [port_of(name) for name in ("port-", "port-x", "control", "3000")] == [None] * 4
