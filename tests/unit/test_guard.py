"""A unit test that starts a process fails."""

from __future__ import annotations

import os
import subprocess

import pytest


@pytest.mark.parametrize("begin", [lambda: subprocess.Popen(["true"]), os.fork, lambda: os.system("true")])
def test_a_unit_test_cannot_start_a_process(begin: object) -> None:
    with pytest.raises(AssertionError, match="starts a process"):
        begin()  # type: ignore[operator]
