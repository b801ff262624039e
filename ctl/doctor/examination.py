"""Runs all checks at the same time, each with a deadline; a check that fails becomes a finding."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from watchout.common.settings import Settings
from watchout.common.toolbox.reason import reason
from watchout.ctl.doctor.check import Check
from watchout.ctl.doctor.findings import Finding, wrong

#: Deadline of one check, in seconds. Most take milliseconds; what waits for a server has the shorter `ASK_S`.
CHECK_S: Final = 10.0


async def examine(settings: Settings, checks: Sequence[Check]) -> list[Finding]:
    """Return the findings of all checks, in the order of the checks."""
    found = await asyncio.gather(*(run_check(check, settings) for check in checks))
    return [finding for findings in found for finding in findings]


async def run_check(check: Check, settings: Settings) -> Sequence[Finding]:
    """Return the findings of one check; a failure or a missed deadline is a finding, and no exception."""
    try:
        async with asyncio.timeout(CHECK_S):
            return await check.run(settings)
    except TimeoutError:
        text = f"This check did not end within {CHECK_S:g} s."
        return [wrong(check.section, text, "Look at the network and the disks.")]
    except OSError as exc:
        where = f", {exc.filename}" if exc.filename else ""
        text = f"This check could not be made: {reason(exc)}{where}."
        return [wrong(check.section, text, "Run it as the user of watchout.")]
    except Exception as exc:  # only its type is shown: the text may hold a secret
        text = f"This check failed because of a bug in watchout-ctl, {type(exc).__name__}."
        return [wrong(check.section, text, "Report it.")]
