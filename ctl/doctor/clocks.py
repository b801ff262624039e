"""Comparison of this machine's clock with another one, by a `Date` header or a measured offset."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from watchout.common.toolbox.http_client import HTTP_ERRORS
from watchout.ctl.doctor.check import ASK_S
from watchout.ctl.doctor.findings import Finding, ok, warning, wrong
from watchout.ctl.doctor.http_requests import http_client

#: Difference of two clocks, in seconds, from which tokens expire noticeably early or late, and from which most tokens
#: are refused.
CLOCK_WARNING_S: Final = 2.0
CLOCK_WRONG_S: Final = 30.0


async def compare_http_clock(whose: str, url: str) -> list[Finding]:
    """Return a finding on the clock of the server at `url`, by the `Date` of any response; none without a date."""
    try:
        async with asyncio.timeout(ASK_S), http_client() as client:
            before_s = time.time()
            async with client.request("HEAD", url) as response:
                after_s = time.time()
                date, age = response.headers.get("Date"), response.headers.get("Age")
    except HTTP_ERRORS:
        return []
    measured = clock_of_date(date, age, before_s, after_s)
    return [] if measured is None else [judge_clock(whose, *measured)]


def clock_of_date(date: str | None, age: str | None, before_s: float, after_s: float) -> tuple[float, float] | None:
    """Return (offset, uncertainty) in seconds of this machine's clock against a `Date` header (RFC 9110 6.6.1).

    Args:
        date: the header; None is returned where it is missing or no date.
        age: the `Age` of a cached response (RFC 9111 5.1), None for none.
        before_s: this machine's clock before the request, in seconds since 1970.
        after_s: the same after the response.
    """
    try:
        moment = parsedate_to_datetime(date or "")
        theirs_s = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() + min(int(age or 0), 10**9)
    except (ValueError, TypeError, OverflowError):
        return None
    # Both headers are whole seconds, rounded down: half a second in the middle.
    return (before_s + after_s) / 2 - (theirs_s + 0.5), 0.5 + (after_s - before_s) / 2 + (1.0 if age else 0.0)


def judge_clock(whose: str, offset_s: float, uncertainty_s: float) -> Finding:
    """Return a finding on this machine's clock against another.

    Args:
        whose: the other clock's owner, as the sentence names it.
        offset_s: seconds by which this machine's clock is ahead.
        uncertainty_s: error of that measurement, in seconds.
    """
    surely_s = max(0.0, abs(offset_s) - uncertainty_s)
    facts = {"against": whose, "offsetS": round(offset_s, 3), "uncertaintyS": round(uncertainty_s, 3)}
    if surely_s <= CLOCK_WARNING_S:
        within_s = max(abs(offset_s), uncertainty_s, 0.05)
        return ok("clock", f"This machine's clock agrees with that of {whose}, within {within_s:.1f} s.", **facts)
    direction, early = ("ahead of", "early") if offset_s > 0 else ("behind", "late")
    return (wrong if surely_s > CLOCK_WRONG_S else warning)(
        "clock",
        f"This machine's clock is {abs(offset_s):.1f} s {direction} that of {whose}: tokens expire that much {early} "
        "here.",
        "Synchronize both by NTP (timedatectl status, chronyc tracking).",
        **facts,
    )
