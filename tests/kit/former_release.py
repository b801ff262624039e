"""The servers of the release before this one, taken out of the history of git."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final

from tests.kit.processes import REPOSITORY
from tests.kit.services import not_permitted

PACKAGES: Final = ("common", "identity", "gateway", "router", "mlbridge")
GIT_S: Final = 60.0


class FormerRelease:
    """The source of the former release below `directory`, beside which this tree's dependencies are used."""

    def __init__(self, directory: Path, revision: str) -> None:
        self.revision = revision
        archive = _git("archive", "--format=tar", revision, *PACKAGES)
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(directory / "watchout", filter="data")
        #: What its processes have in their environment.
        self.environ = {"PYTHONPATH": str(directory)}
        probe = [sys.executable, "-c", "import watchout.common; print(*watchout.common.__path__)"]
        found = subprocess.run(
            probe, check=True, capture_output=True, text=True, env=self.environ, cwd=directory
        ).stdout
        assert found.split() == [str(directory / "watchout/common")], "the installed watchout is in the way"

    def command(self, name: str) -> list[str]:
        """The command that starts ``router``, ``gateway`` or ``mlbridge``."""
        return [sys.executable, "-c", f"from watchout.{name}.app import main; main()"]


def former_release(directory: Path) -> FormerRelease:
    """The release before this tree: the last commit but this one that changed the version.

    Skips the test where git has no such commit, as in a source distribution or a shallow clone.
    """
    try:
        changes = _git("log", "--format=%H", "-G^version = ", "--", "pyproject.toml").decode().split()
        head = _git("rev-parse", "HEAD").decode().strip()
    except (OSError, subprocess.CalledProcessError) as error:
        not_permitted(f"the former release is in the history of git, which there is none of: {error}")
    former = [revision for revision in changes if revision != head]
    # The oldest commit of a shallow clone seems to have made every line.
    if len(former) < 2:
        not_permitted("the former release is not in this history of git: it is a shallow clone")
    return FormerRelease(directory, former[0])


def _git(*words: str) -> bytes:
    command = ["git", "-C", str(REPOSITORY), *words]
    return subprocess.run(command, check=True, capture_output=True, timeout=GIT_S).stdout
