"""Who may view a stream."""

from __future__ import annotations

import pytest

from common.frames import Frame
from gateway.access import may_view, without_right
from gateway.auth import Identity
from gateway.lanes import Subscription

ANN = Identity("ann", "1", 0.0)
BOB = Identity("bob", "2", 0.0)


class Screen:
    """A viewer that is only somebody."""

    def frame(self, subscription: Subscription, frame: Frame, now: float) -> None: ...

    def message(self, message: bytes) -> None: ...

    def right_lost(self, stream: str) -> None: ...


@pytest.mark.parametrize(
    ("policy", "viewer", "owner", "may"),
    [
        ("owner", ANN, "ann", True),
        ("owner", BOB, "ann", False),
        ("owner", BOB, None, True),
        ("owner", Identity("", "3", 0.0), "ann", False),
        ("owner", ANN, "Ann", False),
        ("owner", ANN, "", False),
        ("authenticated", ANN, "ann", True),
        ("authenticated", BOB, "ann", True),
        ("authenticated", BOB, None, True),
    ],
)
def test_who_may_view(policy: str, viewer: Identity, owner: str | None, may: bool) -> None:
    assert may_view(policy, viewer, owner) is may


def test_when_the_owner_changes_only_strangers_lose_their_right() -> None:
    own = (Subscription("door", ANN, video=True, alerts=False), Screen())
    strange = (Subscription("door", BOB, video=True, alerts=False), Screen())
    assert without_right("owner", [own, strange], "ann") == [strange]
    assert without_right("owner", [own, strange], "bob") == [own]
    assert without_right("owner", [own, strange], None) == []
    assert without_right("authenticated", [own, strange], "ann") == []
    assert without_right("owner", [], "ann") == []
