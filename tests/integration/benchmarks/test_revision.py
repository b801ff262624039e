"""How the two revisions of a comparison come to be: their files and their packages."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import revision
from benchmarks.systems import Missing


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, and one file changed, one deleted, one added and one ignored since."""
    folder = tmp_path / "repository"
    (folder / "deep").mkdir(parents=True)
    for name, text in {"kept": "old", "deep/changed": "old", "deleted": "old", ".gitignore": "ignored\n"}.items():
        (folder / name).write_text(text)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    (folder / "deep/changed").write_text("new")
    (folder / "deleted").unlink()
    (folder / "added").write_text("new")
    (folder / "ignored").write_text("new")
    monkeypatch.setattr(revision, "ROOT", folder)
    return folder


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_the_present_revision_is_the_working_tree_without_what_git_ignores(repository: Path, tmp_path: Path) -> None:
    revision.copy_working_tree(tmp_path / "tree")
    assert files(tmp_path / "tree") == {
        "kept": "old", "deep/changed": "new", "added": "new", ".gitignore": "ignored\n"
    }  # fmt: skip


def test_a_former_revision_is_what_was_committed(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    git(repository, "tag", "v1")
    revision.extract("v1", tmp_path / "tree")
    assert files(tmp_path / "tree") == {
        "kept": "old", "deep/changed": "old", "deleted": "old", ".gitignore": "ignored\n"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["no-such-revision", "--help", ""])
def test_a_revision_that_does_not_exist_is_a_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is installed and nothing runs for it."""
    real = revision.installed
    monkeypatch.setattr(revision, "install", lambda *_: pytest.fail("it was installed"))
    monkeypatch.setattr(revision, "installed", lambda base: real(base) if base is not None else None)
    result = CliRunner().invoke(revision.main, ["--", name])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: git rev-parse")


def test_a_command_that_fails_says_what_it_printed(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"sh -c .* ended with 3:\nno such thing"):
        revision.run("sh", "-c", "echo no such thing >&2; exit 3", cwd=tmp_path)


def test_both_revisions_get_the_packages_of_this_environment_in_its_versions() -> None:
    lines = revision.constraints().splitlines()
    assert f"uvloop=={importlib.metadata.version('uvloop')}" in lines
    assert not [line for line in lines if line.startswith("watchout==")]
