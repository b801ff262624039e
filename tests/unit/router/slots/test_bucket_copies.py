"""When a bucket that lacks copies is given them, and what is logged."""

from __future__ import annotations

import pytest

from tests.kit.memory_kv import MemoryKeyValue
from watchout.router.slots.bucket_copies import AGAIN_S, LOG_EVERY_S, LOOK_EVERY_S, STUCK_S, CopiesKeeper


class Place:
    """A bucket, and a clock that the test moves."""

    def __init__(self, copies: int, places: int) -> None:
        self.store, self.now = MemoryKeyValue(), 0.0
        self.store.members, self.store.places = ("n1", "n2", "n3")[:copies], places
        self.keeper = CopiesKeeper(self.store, "leases", lambda: self.now)

    async def pass_s(self, seconds: float) -> None:
        """Look every 10 s for so long, as a router does."""
        until = self.now + seconds
        while self.now < until:
            await self.keeper.look()
            self.now += 10


async def test_a_bucket_with_all_copies_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(3, 3)
    await place.pass_s(300)
    assert place.store.tried == 0
    assert capsys.readouterr().out == ""


async def test_it_is_tried_again_until_there_are_servers_for_all_copies(capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(1, 1)
    await place.pass_s(300)
    assert place.store.tried == 300 / AGAIN_S
    told = capsys.readouterr().out
    assert told.count("has 1 of 3 copies") == 1, "what does not change is said once in a while"
    assert "no suitable peers" in told
    place.store.places = 2
    await place.pass_s(AGAIN_S)
    assert "has 2 of 3 copies" in capsys.readouterr().out
    place.store.places = 3
    await place.pass_s(AGAIN_S)
    assert place.store.members == ("n1", "n2", "n3")
    assert "has all its copies" in capsys.readouterr().out
    tried = place.store.tried
    await place.pass_s(300)
    assert (place.store.tried, capsys.readouterr().out) == (tried, "")


async def test_a_copy_that_is_taken_away_later_is_added_within_the_time_between_two_looks() -> None:
    place = Place(3, 3)
    await place.pass_s(10)
    place.store.members = ("n1",)
    await place.pass_s(LOOK_EVERY_S)
    assert len(place.store.members) == 3


async def test_while_it_lasts_it_is_said_again(capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(1, 1)
    await place.pass_s(3 * LOG_EVERY_S)
    assert capsys.readouterr().out.count("has 1 of 3 copies") == 3


async def test_a_store_that_cannot_be_asked_is_asked_later(capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(1, 3)
    place.store.down = True
    await place.pass_s(60)
    assert (place.store.tried, capsys.readouterr().out) == (0, "")
    place.store.down = False
    await place.pass_s(LOOK_EVERY_S)
    assert len(place.store.members) == 3


async def test_whoever_looks_after_another_process_says_it_itself(capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(1, 1)
    await place.pass_s(10)
    place.keeper.forget()
    await place.pass_s(AGAIN_S)
    assert capsys.readouterr().out.count("has 1 of 3 copies") == 2


async def test_a_copy_that_stands_still_is_said_after_a_minute_and_again_while_it_lasts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = Place(3, 3)
    place.store.behind = ("n2",)
    await place.pass_s(STUCK_S)
    assert capsys.readouterr().out == ""
    await place.pass_s(LOG_EVERY_S)
    told = capsys.readouterr().out
    assert told.count("stand still; after a full disk: make room, and restart that nats-server") == 1
    assert "n2" in told
    await place.pass_s(LOOK_EVERY_S)
    assert capsys.readouterr().out.count("stand still;") == 1
    place.store.behind = ("n2", "n3")
    await place.pass_s(STUCK_S + LOOK_EVERY_S)
    assert "n3" in capsys.readouterr().out
    place.store.behind = ()
    await place.pass_s(LOOK_EVERY_S)
    assert "no copy of the bucket of the leases stands still any more" in capsys.readouterr().out


async def test_a_copy_that_is_behind_now_and_then_is_none_that_stands_still(capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(3, 3)
    for behind in [("n2",), (), ("n3",), ("n2",)] * 9:
        place.store.behind = behind
        await place.pass_s(LOOK_EVERY_S)
    for down in (False, True) * 5:  # what was meanwhile is not known
        place.store.behind, place.store.down = ("n2",), down
        await place.pass_s(LOOK_EVERY_S)
    assert capsys.readouterr().out == ""
