"""The committed console is what its source builds, byte for byte; its types and its own tests hold."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.kit.console import console_modules
from tests.kit.node import node_command
from tests.kit.processes import REPOSITORY

COMMITTED: Final = REPOSITORY / "gateway/http/console"
TIMEOUT_S: Final = 300.0


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of what the console is built of, with its packages."""
    for name in ("console", "sdk/js/client/src", "gateway/http/console"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("node_modules"))
    shutil.copyfile(REPOSITORY / "sdk/js/client/package.json", tmp_path / "sdk/js/client/package.json")
    (tmp_path / "console/node_modules").symlink_to(console_modules())
    return tmp_path / "console"


def node(source: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = node_command()
    assert command is not None
    return subprocess.run([*command, *arguments], cwd=source, capture_output=True, text=True, timeout=TIMEOUT_S)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_committed_bundle_is_what_the_source_builds(source: Path) -> None:
    checked = node(source, "build.mjs", "--check")
    assert checked.returncode == 0, checked.stderr
    built = node(source, "build.mjs")
    assert built.returncode == 0, built.stderr
    assert contents(source.parent / "gateway/http/console") == contents(COMMITTED)


def test_a_bundle_that_differs_from_its_source_is_found(source: Path) -> None:
    with (source / "src/main.tsx").open("a") as file:
        file.write('\nconsole.log("changed");\n')
    checked = node(source, "build.mjs", "--check")
    assert checked.returncode == 1
    assert "make console" in checked.stderr


def test_the_types_of_the_console_hold(source: Path) -> None:
    checked = node(source, "node_modules/typescript/bin/tsc", "--noEmit")
    assert checked.returncode == 0, checked.stdout


def test_the_pure_parts_of_the_console_pass_their_tests(source: Path) -> None:
    tested = node(source, "test.mjs")
    assert tested.returncode == 0, tested.stdout[-4000:]
    assert "# fail 0" in tested.stdout or "fail 0" in tested.stdout
