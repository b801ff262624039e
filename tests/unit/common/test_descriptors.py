"""What is said of a process that has no file descriptor left."""

from __future__ import annotations

import errno
import os

import pytest

from watchout.common.process import descriptors


@pytest.mark.parametrize(("number", "said"), [(errno.EMFILE, True), (errno.ENFILE, True), (errno.EACCES, False)])
def test_only_a_lack_of_descriptors_is_said(number: int, said: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(descriptors.os, "open", refuse)
    found = descriptors.none_left()
    monkeypatch.undo()
    assert (found is not None) is said
    if found is not None:
        assert f"{descriptors.limit()} file descriptors are in use" in found


def test_nothing_is_said_and_nothing_stays_open_while_there_are_some() -> None:
    before = descriptors.count_open()
    assert descriptors.none_left() is None
    assert descriptors.count_open() == before
