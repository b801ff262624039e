"""The verdict on the issuer's published keys."""

from __future__ import annotations

import pytest

from watchout.ctl.doctor.checks.jwt_keys import judge_published_keys
from watchout.ctl.doctor.findings import Level

OK, WARNING, WRONG = Level.OK, Level.WARNING, Level.WRONG


@pytest.mark.parametrize(
    ("usable", "published", "level", "words"),
    [(1, 1, OK, "1 key that"), (2, 3, OK, "2 of 3 keys"), (0, 2, WRONG, "2 keys, none of"), (0, 0, WRONG, "0 keys")],
)
def test_every_set_of_keys(usable: int, published: int, level: Level, words: str) -> None:
    finding = judge_published_keys(" at k:443", usable=usable, published=published, algorithms="EdDSA")
    assert finding.level is level
    assert words in finding.says
