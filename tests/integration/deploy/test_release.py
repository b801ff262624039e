"""What a release consists of fits, and `deploy/release.py` refuses what does not."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.kit.processes import REPOSITORY


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", REPOSITORY / "deploy/release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


release = load()
VERSION = release.release_version(REPOSITORY)
FILES = (
    "pyproject.toml", "CHANGELOG.md", "LICENSE", "sdk/js/package.json", "sdk/js/client/LICENSE", "sdk/js/react/LICENSE",
    release.SOURCE, *release.PACKAGES, *release.LOCKS, *release.PAGES,
)  # fmt: skip
READY = f"# Changelog\n\n## [Unreleased]\n\n## [{VERSION}] - 2026-01-31\n\n### Added\n\n- Something.\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What of the repository says a version, with a changelog that is ready."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(READY)
    return tmp_path


def test_all_versions_and_licenses_of_the_repository_fit(tree: Path) -> None:
    assert release.faults(tree) == []


@pytest.mark.parametrize("name", [release.SOURCE, *release.PACKAGES, *release.LOCKS, *release.PAGES])
def test_a_version_that_was_forgotten_is_named(tree: Path, name: str) -> None:
    text = (tree / name).read_text()
    assert VERSION in text
    (tree / name).write_text(text.replace(VERSION, "9.9.9"))
    found = release.faults(tree)
    assert found
    assert all(name in fault and "9.9.9" in fault for fault in found)


@pytest.mark.parametrize("name", [*release.PACKAGES, "sdk/js/package.json"])
def test_a_package_without_the_license_is_named(tree: Path, name: str) -> None:
    package = json.loads((tree / name).read_text())
    (tree / name).write_text(json.dumps({**package, "license": "UNLICENSED"}))
    assert [fault for fault in release.faults(tree) if name in fault]


def test_a_license_that_differs_is_named(tree: Path) -> None:
    (tree / "sdk/js/react/LICENSE").write_text("mine")
    assert release.faults(tree) == ["sdk/js/react/LICENSE differs from LICENSE"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (READY.replace("## [Unreleased]\n", ""), "as the first section"),
        (READY.replace("2026-01-31", "unreleased"), "YYYY-MM-DD"),
        (READY.replace(VERSION, "0.0.1"), "the newest release is"),
        (READY.replace("- Something.", ""), "has no entry"),
        (READY.replace("## [Unreleased]\n", "## [Unreleased]\n\n### Added\n\n- New.\n"), "under [Unreleased]"),
    ],
)
def test_a_changelog_that_is_not_ready_is_refused(text: str, says: str) -> None:
    (fault,) = release.changelog_faults(text, VERSION)
    assert says in fault


def git(tree: Path, *words: str) -> None:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *words], cwd=tree, check=True, capture_output=True)


def test_a_changed_tree_and_a_tag_of_another_commit_are_refused(tree: Path) -> None:
    git(tree, "init", "-q")
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "one")
    assert release.tree_faults(tree) == []
    git(tree, "tag", f"v{VERSION}")
    assert release.tree_faults(tree) == []
    (tree / "new.txt").write_text("x")
    (fault,) = release.tree_faults(tree)
    assert "new.txt" in fault
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "two")
    (fault,) = release.tree_faults(tree)
    assert f"v{VERSION} is the tag of another commit" in fault


def test_the_command_says_what_is_wrong_and_exits_with_1(tree: Path) -> None:
    (tree / "deploy").mkdir()
    shutil.copyfile(REPOSITORY / "deploy/release.py", tree / "deploy/release.py")
    (tree / "CHANGELOG.md").write_text(READY.replace("- Something.", ""))
    git(tree, "init", "-q")
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "one")
    command = [sys.executable, str(tree / "deploy/release.py"), "--check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("release: CHANGELOG.md")
    (tree / "CHANGELOG.md").write_text(READY)
    git(tree, "commit", "-qam", "two")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout == f"{VERSION} can be released\n"
    done = subprocess.run(command, env={"PATH": ""}, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "release: the program git is needed, and is not installed\n")


def test_files_that_lack_something_are_no_release(tmp_path: Path) -> None:
    wheel = tmp_path / f"watchout-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("watchout/client/py.typed", "")
    package = tmp_path / f"watchout-client-{VERSION}.tgz"
    with tarfile.open(package, "w:gz") as tar:
        tar.add(REPOSITORY / "LICENSE", "package/LICENSE")
    found = release.content_faults([wheel, package], VERSION)
    assert f"watchout-{VERSION}.tar.gz was not built" in found
    assert f"{wheel.name} lacks licenses/LICENSE" in found
    assert f"{package.name} lacks package/dist/index.js" in found
