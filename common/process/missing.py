"""Which process is missing, in a sentence that says how to start it."""

from __future__ import annotations

from pathlib import Path

from watchout.common.home import who_holds
from watchout.common.home_files import ROUTER_LOCK
from watchout.common.process import process_name


def no_router(home: Path) -> str:
    """Why no router answers on this home."""
    pid = who_holds(home / ROUTER_LOCK)
    if pid is not None:
        who = f"process {pid}" if pid else "process unknown"
        return f"the router ({who}) of WATCHOUT_HOME={home} does not answer: it just starts, or hangs; look at its log"
    return (
        f"no router runs on WATCHOUT_HOME={home}: start `watchout-router` with the same WATCHOUT_HOME (`honcho start` "
        "starts all)"
    )


def nothing_answers(home: Path) -> str:
    """What there is instead of a router that answers, for whoever wanted to ask it."""
    there = process_name.running(home)
    if not there and who_holds(home / ROUTER_LOCK) is None:
        where = "" if home.is_dir() else ", which is not there"
        return f"nothing is running on WATCHOUT_HOME={home}{where} (is `honcho start` up?)"
    others = [name if not pid else f"{name} (process {pid})" for name, pid in there.items()]
    return no_router(home) + (f"; running are {', '.join(others)}" if others else "")
