"""Builds the C module again when its source is newer, then replaces itself with the given command; for ``make dev``.

It does not run in production, where the module is built when watchout is installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("_fastpath.c")


def is_source(_change: object, path: str) -> bool:
    """Whether a changed file makes ``watchfiles`` restart the gateway."""
    return path.endswith((".py", ".c"))


def is_stale() -> bool:
    """Whether the module was built, from an older version of its source."""
    built = sorted(SOURCE.parent.glob("_fastpath.*.so"))
    return SOURCE.exists() and bool(built) and max(b.stat().st_mtime for b in built) < SOURCE.stat().st_mtime


def rebuild() -> None:
    """Build the module if it is stale; prints that, and prints the compiler's output if the build fails."""
    if not is_stale():
        return
    print("gateway/_fastpath.c has changed: building it", flush=True)
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=SOURCE.parents[1], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode or is_stale():
        print(done.stdout + "gateway/_fastpath.c cannot be built: the former build stays in use", flush=True)


if __name__ == "__main__":
    rebuild()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the command of Procfile.dev
