"""A unit test that starts a process fails."""

from __future__ import annotations

import os
import subprocess

import pytest


@pytest.fixture
def refused() -> str:
    """What a fixture is told that starts a process."""
    with pytest.raises(AssertionError) as caught:
        subprocess.Popen(["true"])
    return str(caught.value)


def test_neither_can_its_fixtures(refused: str) -> None:
    assert "starts a process" in refused


@pytest.mark.parametrize("begin", [lambda: subprocess.Popen(["true"]), os.fork, lambda: os.system("true")])
def test_a_unit_test_cannot_start_a_process(begin: object) -> None:
    with pytest.raises(AssertionError, match="starts a process"):
        begin()  # type: ignore[operator]
