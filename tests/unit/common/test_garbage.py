"""When new objects are examined for cycles: by the work that makes them, so that no collection has many to examine."""

from __future__ import annotations

import pytest

from watchout.common.process import garbage
from watchout.common.process.garbage import PIECES


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The generations that were collected; the counter begins anew."""
    found: list[int] = []
    monkeypatch.setattr(garbage.gc, "collect", found.append)
    monkeypatch.setattr(garbage.gc, "isenabled", lambda: True)
    monkeypatch.setattr(garbage._work, "left", PIECES)
    return found


def test_new_objects_are_examined_after_so_many_pieces_of_work(collected: list[int]) -> None:
    for _ in range(PIECES - 1):
        garbage.worked()
    assert collected == []
    garbage.worked()
    assert collected == [1]
    garbage.worked(PIECES + 5)
    assert collected == [1, 1], "what is more than a whole count is not owed"
    garbage.worked(PIECES - 1)
    assert collected == [1, 1]


def test_who_switched_the_collector_off_keeps_it_off(collected: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage.gc, "isenabled", lambda: False)
    garbage.worked(PIECES)
    assert collected == []
