"""The last file descriptors are given to nobody, and other machines get fewer than this one."""

from __future__ import annotations

import pytest

from watchout.common.bus.zeromq.accept_guard import is_short


@pytest.mark.parametrize(
    ("limit", "local", "last"),
    [
        (64, False, 48),
        (64, True, 56),
        (256, False, 224),
        (256, True, 240),
        (20_000, False, 19_936),
        (20_000, True, 19_968),
    ],
)
def test_so_many_may_be_open(limit: int, local: bool, last: int) -> None:
    assert not is_short(last, limit, local=local)
    assert is_short(last + 1, limit, local=local)


def test_where_the_number_is_not_known_nobody_is_turned_away() -> None:
    assert not is_short(None, 64)
    assert not is_short(None, 64, local=True)
