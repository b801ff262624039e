"""When the leader of the records is moved to that of the leases."""

from __future__ import annotations

import pytest

from tests.kit.memory_kv import MemoryKeyValue
from watchout.common.bus.key_value import BucketUnavailable
from watchout.router.slots.bucket_leaders import AGAIN_AFTER_FAULTS_S, AGAIN_S, BucketLeaders


class Place:
    """Both buckets, and a clock that the test moves."""

    def __init__(self, leases: str | None, records: str | None) -> None:
        self.leases, self.records, self.now = MemoryKeyValue(), MemoryKeyValue(), 0.0
        self.leases.led_by, self.records.led_by = leases, records
        self.leaders = BucketLeaders(self.leases, self.records, lambda: self.now)

    async def looks(self, times: int) -> list[str]:
        """Look so many times; where the leader of the records was to be moved."""
        before = len(self.records.moved_to)
        for _ in range(times):
            await self.leaders.look()
        return self.records.moved_to[before:]


async def test_at_the_second_look_the_records_follow_the_leases() -> None:
    place = Place("n1", "n2")
    assert await place.looks(1) == []
    assert await place.looks(1) == ["n1"]
    assert await place.looks(3) == []
    assert place.leases.moved_to == []


@pytest.mark.parametrize(("leases", "records"), [("n1", "n1"), (None, "n1"), ("n1", None), (None, None)])
async def test_nothing_is_moved_where_both_are_led_by_one_or_a_leader_is_not_known(
    leases: str | None, records: str | None
) -> None:
    assert await Place(leases, records).looks(5) == []


async def test_nothing_is_moved_while_the_leaders_change() -> None:
    place = Place("n1", "n2")
    for leases, records in (("n1", "n2"), ("n1", "n3"), ("n2", "n3"), ("n2", "n2"), ("n1", "n2")):
        place.leases.led_by, place.records.led_by = leases, records
        assert await place.looks(1) == []


async def test_between_two_looks_a_store_that_cannot_be_asked_begins_anew() -> None:
    place = Place("n1", "n2")
    await place.looks(1)
    place.records.down = True
    assert await place.looks(1) == []
    place.records.down = False
    assert await place.looks(1) == []
    assert await place.looks(1) == ["n1"]


async def test_a_leader_that_goes_elsewhere_is_moved_again_after_a_while() -> None:
    place = Place("n1", "n2")
    await place.looks(2)
    place.records.led_by = "n3"
    assert await place.looks(5) == []
    place.now = AGAIN_S
    assert await place.looks(1) == ["n1"]


async def test_nothing_is_moved_to_a_server_without_a_copy() -> None:
    place = Place("n4", "n1")
    assert await place.looks(5) == []
    place.leases.led_by, place.records.members = "n2", ("n1",)
    assert await place.looks(5) == []


async def test_whoever_looks_again_after_another_process_begins_anew() -> None:
    place = Place("n1", "n2")
    await place.looks(1)
    place.leaders.forget()
    assert await place.looks(1) == []
    assert await place.looks(1) == ["n1"]


async def test_what_is_refused_again_is_asked_much_later_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    place = Place("n1", "n2")

    async def refuse(server: str) -> None:
        place.records.moved_to.append(server)
        raise BucketUnavailable("not permitted")

    move, place.records.move_leader = place.records.move_leader, refuse  # type: ignore[method-assign]
    assert await place.looks(9) == ["n1"]
    place.now = AGAIN_S
    assert await place.looks(9) == ["n1"]
    place.now += AGAIN_AFTER_FAULTS_S - 1
    assert await place.looks(9) == []
    place.now += 1
    place.records.move_leader = move  # type: ignore[method-assign]
    assert await place.looks(9) == ["n1"]
    assert capsys.readouterr().out.count("cannot be moved") == 1
    place.leases.led_by = "n3"
    place.now += AGAIN_S
    assert await place.looks(9) == ["n3"]
