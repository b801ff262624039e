"""The names of the files in the home: which are watchout's, and that they are written in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from watchout.common import home_files
from watchout.common.home_files import is_home_file, port_lock, port_of

ROOT = Path(__file__).parents[3]
PACKAGES = ("common", "identity", "gateway", "router", "mlbridge", "ctl")
#: Names that are no word of their own: a literal of the same text elsewhere is a repetition.
DISTINCT = {
    value
    for name, value in vars(home_files).items()
    if name.isupper() and isinstance(value, str) and ("." in value or value.endswith("-"))
}


@pytest.mark.parametrize("name", ["control", "frames.in", "router.lock", "sessions.db", "port-3000", "name-gateway-2"])
def test_a_file_of_watchout_is_known_by_its_name(name: str) -> None:
    assert is_home_file(name)


@pytest.mark.parametrize("name", ["", "notes.txt", "control2", "sessions.db.bak", "report-1"])
def test_any_other_file_is_not_watchouts(name: str) -> None:
    assert not is_home_file(name)


def test_the_port_of_a_lock_is_read_from_its_name() -> None:
    assert port_of(port_lock(3000)) == 3000
    assert [port_of(name) for name in ("port-", "port-x", "control", "3000")] == [None] * 4


def test_each_name_is_written_in_one_place_only() -> None:
    assert {"frames.in", "router.lock", "listen.lock", "sessions.db", "reservations.db", "stream.key"} <= DISTINCT
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if path.name == "home_files.py":
                continue
            literals = {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
            assert not literals & DISTINCT, path
