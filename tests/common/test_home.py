"""The directory in which the sockets of the bus live."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from common.bus import prepare_home
from common.errors import StartError


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_home_is_for_nobody_else(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        prepare_home(tmp_path / "deep" / "home")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "deep" / "home").stat().st_mode) == 0o700


def test_a_home_that_was_open_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    prepare_home(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_home_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match="file"):
        prepare_home(tmp_path / "file" / "home")
