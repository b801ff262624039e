"""Files that change: what is made of them is made anew, and what was made before stays while they cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from watchout.common.errors import StartError
from watchout.common.toolbox.renewed import Renewed


class Source:
    """Makes the text of two files that have to be the same; counts how often."""

    def __init__(self, folder: Path) -> None:
        self.paths = folder / "one", folder / "two"
        self.made = 0

    def write(self, one: str, two: str) -> None:
        for path, text in zip(self.paths, (one, two), strict=True):
            path.write_text(text)

    def make(self) -> str:
        self.made += 1
        one, two = (path.read_text() for path in self.paths)
        if one != two:
            raise StartError(f"{one} is not {two}")
        return one


def test_changed_files_are_used_once_they_fit_and_each_reason_is_logged_once(tmp_path: Path) -> None:
    source = Source(tmp_path)
    source.write("a", "a")
    renewed = Renewed("names", [*source.paths, None], source.make)
    with capture_logs() as logged:
        assert [renewed.look(), renewed.look(), renewed.current] == ["a"] * 3
        assert source.made == 1, "they have not changed"
        source.write("bb", "a")
        assert [renewed.look(), renewed.look()] == ["a", "a"]
        assert source.made == 3, "files that do not fit are tried again"
        source.write("bb", "ccc")
        assert renewed.look() == "a"
        source.write("bb", "bb")
        assert [renewed.look(), renewed.current] == ["bb", "bb"]
    refused = [line["reason"] for line in logged if line["log_level"] == "warning"]
    assert refused == ["bb is not a", "bb is not ccc"]
    assert [line["files"] for line in logged if "files" in line] == [[str(path) for path in source.paths]]


def test_what_changes_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    source = Source(tmp_path)
    source.write("a", "a")

    def make() -> str:
        found = source.make()
        if found == "bb":
            source.write("ccc", "ccc")
        return found

    renewed = Renewed("names", source.paths, make)
    source.write("bb", "bb")
    assert [renewed.look(), renewed.look()] == ["bb", "ccc"]


def test_files_that_cannot_be_used_at_the_start_are_a_fault_of_it(tmp_path: Path) -> None:
    source = Source(tmp_path)
    source.write("a", "b")
    with pytest.raises(StartError, match="a is not b"):
        Renewed("names", source.paths, source.make)
