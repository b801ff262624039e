"""Processes whose wall clock is wrong by so many seconds, as that of a host without NTP."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.kit.services import missing

_SOURCE: Final = Path(__file__).with_suffix(".c")


def shifted_clock(seconds: int) -> dict[str, str]:
    """The environment of a process whose wall clock is ahead by so much (behind, when negative). Needs gcc."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        missing("no C compiler is on the PATH: a clock cannot be shifted")
    library = Path(tempfile.gettempdir()) / f"wo-shifted-clock-{_SOURCE.stat().st_mtime_ns}-{os.geteuid()}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=library.parent) as directory:
            made = Path(directory) / "clock.so"
            subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, _SOURCE], check=True)
            made.replace(library)  # at once, for all workers
    return {"LD_PRELOAD": str(library), "CLOCK_SHIFT_S": str(seconds)}
