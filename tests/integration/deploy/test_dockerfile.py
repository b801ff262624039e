"""The Dockerfile says what docs/deploy.md promises, and `deploy/container/rootfs.py` understands all of it."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from tests.kit.processes import REPOSITORY
from tests.kit.skips import NOT_PERMITTED

FOLDER = REPOSITORY / "deploy/container"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rootfs", FOLDER / "rootfs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rootfs"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


rootfs = load()
BUILD, IMAGE = rootfs.parse((FOLDER / "Dockerfile").read_text())


def texts(stage: object, word: str) -> list[str]:
    return [text for each, text in stage.steps if each == word]  # type: ignore[attr-defined]


def test_the_script_knows_every_instruction() -> None:
    known = {"RUN", "COPY", "ENV", "WORKDIR", *rootfs.CONFIG}
    assert {word for stage in (BUILD, IMAGE) for word, _ in stage.steps} <= known
    assert {BUILD.base, IMAGE.base} <= set(rootfs.BASES)


def test_every_folder_of_the_package_is_copied_and_in_the_context() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    folders = set(project["tool"]["setuptools"]["package-dir"].values())
    copied = {name for text in texts(BUILD, "COPY") for name in shlex.split(text)[:-1]}
    assert all(any(folder == name or folder.startswith(f"{name}/") for name in copied) for folder in folders)
    assert {"pyproject.toml", "setup.py", "README.md", "LICENSE"} <= copied
    rules = [line for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    assert copied == {rule.removeprefix("!") for rule in rules}


def test_the_image_has_no_compiler_and_is_not_root() -> None:
    installs = " ".join(texts(IMAGE, "RUN"))
    assert not fnmatch.filter(shlex.split(installs), "*gcc*") + fnmatch.filter(shlex.split(installs), "*-dev")
    (user,) = texts(IMAGE, "USER")
    assert int(user) > 0  # a number: Kubernetes checks runAsNonRoot by it


def test_the_process_is_process_1_and_health_is_asked_of_the_gateway() -> None:
    assert json.loads(texts(IMAGE, "CMD")[0]) == ["watchout-gateway"]
    (health,) = texts(IMAGE, "HEALTHCHECK")
    command = json.loads(health.partition(" CMD ")[2])
    assert command[0] == "python3"
    compile(command[2], "HEALTHCHECK", "exec")
    assert "/health?limit=0'" in command[2]


def test_a_dockerfile_is_read_as_docker_reads_it() -> None:
    text = (
        '# c\nFROM debian:bookworm-slim AS one\nRUN a \\\n  # of a step\n    && b\ncopy x /y\n\nFROM one\nCMD ["z"]\n'
    )
    one, two = rootfs.parse(text)
    assert (one.name, one.steps) == ("one", [("RUN", "a && b"), ("COPY", "x /y")])
    assert (two.base, two.steps) == ("one", [("CMD", '["z"]')])
    with pytest.raises(ValueError, match="before the first FROM"):
        rootfs.parse("RUN a\n")


@pytest.mark.parametrize("step", ["ADD x /y", "COPY --chown=1 x /y"])
def test_what_the_script_does_not_know_is_refused_and_not_left_out(tmp_path: Path, step: str) -> None:
    (tmp_path / "empty").mkdir()
    with tarfile.open(tmp_path / "base.tar", "w") as tar:
        tar.add(tmp_path / "empty", "./etc")
    builder = rootfs.Builder(tmp_path / "made", tmp_path, tmp_path / "base.tar")
    with pytest.raises(ValueError, match="not an"):
        builder.build(rootfs.parse(f"FROM debian:bookworm-slim\n{step}\n"))


def made_by(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The script, with a search path on which there is no mmdebstrap."""
    script = [sys.executable, str(FOLDER / "rootfs.py"), *words]
    return subprocess.run(script, env={"PATH": str(path)}, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.skipif(os.geteuid() != 0, reason=NOT_PERMITTED + "the script needs root")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["made"], "rootfs: the program mmdebstrap is needed, and is not installed\n"),
        (["."], "rootfs: [Errno 17] File exists: "),
        (["made", "--dockerfile", "none"], "rootfs: [Errno 2] No such file or directory: "),
    ],
)
def test_what_the_script_lacks_is_said_in_a_line(tmp_path: Path, words: list[str], says: str) -> None:
    done = made_by(tmp_path, str(tmp_path / words[0]), *words[1:])
    assert (done.returncode, done.stderr[: len(says)], done.stderr.count("\n")) == (1, says, 1)
