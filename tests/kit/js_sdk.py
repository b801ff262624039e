"""sdk/js as its users get it: installed and built once per machine and source, for all test workers together."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.kit.node import CLEAN_INSTALL, INSTALL_S, node_command, npm_command
from tests.kit.processes import clean_environ
from tests.kit.services import missing

SDK: Final = Path(__file__).parents[2] / "sdk/js"
#: What the build is made of.
_SOURCES: Final = ("*/src/**/*.ts", "*/src/**/*.tsx", "*/package.json", "*/tsconfig*.json", "scripts/*", "*.json")


@contextlib.contextmanager
def node_path() -> Iterator[str]:
    """A PATH on which `node` is the Node of the tests, and `npm` the machine's."""
    node = node_command()
    if node is None:
        missing("no Node, neither on the PATH nor as a package")
        raise AssertionError
    with tempfile.TemporaryDirectory() as programs:
        (Path(programs) / "node").symlink_to(Path(node[0]).resolve())  # the folder of the wheel has a broken `npm`
        yield f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def npm(*arguments: str, folder: Path = SDK) -> subprocess.CompletedProcess[str]:
    """Run npm in a folder, with the Node of the tests as `node`; output as text."""
    command = npm_command()
    if command is None:
        missing("no npm, neither on the PATH nor with the package of Node")
        raise AssertionError
    with node_path() as path:
        return subprocess.run(
            [*command, *arguments], cwd=folder, env={**clean_environ(), "PATH": path}, capture_output=True, text=True,
            timeout=INSTALL_S, check=False,
        )  # fmt: skip


def install(folder: Path) -> None:
    """Install what the lock file of a folder names, unless that has been done."""
    modules = folder / "node_modules"
    modules.mkdir(exist_ok=True)
    stamp, wanted = modules / ".watchout-installed", hash_of([folder / "package-lock.json"])
    if _says(stamp, wanted):  # without the lock, which another worker may hold for the tests of the packages
        return
    with (folder / "node_modules.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _says(stamp, wanted):
            return
        done = npm(*CLEAN_INSTALL, "--ignore-scripts", folder=folder)
        if done.returncode:
            missing(f"npm ci failed in {folder.name}: {done.stderr[-500:]}")
        stamp.write_text(wanted)


@functools.cache
def built_sdk() -> Path:
    """The folder sdk/js, installed and built from its present sources."""
    install(SDK)
    sources = sorted({path for pattern in _SOURCES for path in SDK.glob(pattern) if "node_modules" not in path.parts})
    stamp, wanted = SDK / "node_modules/.watchout-built", hash_of(sources)

    def is_built() -> bool:
        return _says(stamp, wanted) and (SDK / "client/dist/index.js").exists()

    if is_built():
        return SDK
    with (SDK / "node_modules.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_built():
            stamp.unlink(missing_ok=True)  # an old one must not speak for a build that is not whole
            done = npm("run", "build")
            assert done.returncode == 0, done.stdout + done.stderr
            stamp.write_text(wanted)
    return SDK


def _says(stamp: Path, wanted: str) -> bool:
    """Whether a file is there and has this text."""
    try:
        return stamp.read_text() == wanted
    except FileNotFoundError:
        return False


def hash_of(paths: Sequence[Path]) -> str:
    """A hash of names and contents."""
    digest = hashlib.sha256()
    for path in paths:
        if path.is_file():
            digest.update(f"{path}\0".encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="session")
def js_sdk() -> Path:
    """sdk/js, installed and built."""
    return built_sdk()
