"""Check of this machine's clock against those of the routers of a site of several machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from watchout.common.settings import Settings
from watchout.ctl.bus_client import JOIN_TIMEOUT_S, member_links
from watchout.ctl.doctor.check import Check
from watchout.ctl.doctor.clocks import CLOCK_WARNING_S
from watchout.ctl.doctor.findings import Finding, ok, warning
from watchout.ctl.terminal import counted

#: What a measurement may be wrong by, in seconds: the time that a message was under way.
UNCERTAIN_S: Final = 0.5


async def check_router_clocks(settings: Settings) -> Sequence[Finding]:
    """Return the findings, none without `WATCHOUT_BUS`: one machine has one clock."""
    if not settings.bus:
        return []
    async with member_links(settings) as links:
        await links.wait_live(JOIN_TIMEOUT_S)
        apart_ms = {link.slot: link.clock.apart_ms for link in links.all()}
    return list(judge_router_clocks({slot: ms / 1000 for slot, ms in apart_ms.items() if ms is not None}))


CHECK: Final = Check("clock", check_router_clocks)


def judge_router_clocks(apart_s: Mapping[int, float]) -> Iterator[Finding]:
    """Yield whether this machine's clock agrees with those of the routers. Pure.

    Args:
        apart_s: by slot, the seconds by which the clock of its router is ahead of the one here.
    """
    for slot, seconds in sorted(apart_s.items()):
        if abs(seconds) > CLOCK_WARNING_S + UNCERTAIN_S:
            way = "behind" if seconds > 0 else "ahead of"
            yield warning(
                "clock",
                f"This machine's clock is {abs(seconds):.1f} s {way} that of the router of slot {slot}. Slots and "
                "frames do not depend on it, and times of alerts are converted; but clients that reconnect to another "
                "machine ask for missed alerts by the clock of the machine that they left: some may be repeated, or "
                "missing.",
                "Synchronize all machines by NTP (timedatectl status, chronyc tracking).",
                slot=slot, offsetS=round(-seconds, 3),
            )  # fmt: skip
    good = sum(abs(seconds) <= CLOCK_WARNING_S + UNCERTAIN_S for seconds in apart_s.values())
    if good:
        most_s = CLOCK_WARNING_S + UNCERTAIN_S
        yield ok(
            "clock", f"This machine's clock agrees with those of {counted(good, 'router')}, within {most_s:.1f} s."
        )
