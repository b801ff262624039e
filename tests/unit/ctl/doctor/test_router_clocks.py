"""What the doctor says of this machine's clock against those of the routers of a site."""

from __future__ import annotations

from tests.kit.doctor_report import levels, one
from watchout.common.settings import load
from watchout.ctl.doctor.checks.router_clocks import check_router_clocks, judge_router_clocks
from watchout.ctl.doctor.findings import Level


def test_clocks_that_agree_are_one_line() -> None:
    found = one(judge_router_clocks({0: 0.1, 1: -2.4}))
    assert found.level is Level.OK
    assert "2 routers" in found.says


def test_a_clock_that_is_apart_is_named_by_slot_with_what_it_means() -> None:
    found = list(judge_router_clocks({0: 0.0, 1: 600.0, 2: -3.0}))
    assert levels(found) == [Level.WARNING, Level.WARNING, Level.OK]
    assert "600.0 s behind that of the router of slot 1" in found[0].says
    assert "3.0 s ahead of that of the router of slot 2" in found[1].says
    assert found[0].facts["offsetS"] == -600.0
    assert "missed alerts" in found[0].says
    assert "NTP" in found[0].remedy


async def test_one_machine_has_one_clock() -> None:
    assert await check_router_clocks(load({})) == []
