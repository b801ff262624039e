"""Sentences on a missing router: what runs instead, and how to start it."""

from __future__ import annotations

from pathlib import Path

from watchout.common.home import who_holds
from watchout.common.home_files import ROUTER_LOCK
from watchout.common.process import process_name


def no_router(home: Path) -> str:
    """Return why no router replies on this home, and how to start it."""
    pid = who_holds(home / ROUTER_LOCK)
    if pid is not None:
        who = f"process {pid}" if pid else "process unknown"
        return (
            f"the router ({who}) of WATCHOUT_HOME={home} does not reply: it is just starting, or hangs; look at its log"
        )
    return (
        f"no router runs on WATCHOUT_HOME={home}: start `watchout-router` with the same WATCHOUT_HOME (`honcho start` "
        "starts all)"
    )


def nothing_answers(home: Path) -> str:
    """Return the same with the processes that run instead, for a command that needs the router."""
    running = process_name.running(home)
    if not running and who_holds(home / ROUTER_LOCK) is None:
        where = "" if home.is_dir() else ", which does not exist"
        return f"nothing is running on WATCHOUT_HOME={home}{where} (is `honcho start` up?)"
    others = [name if not pid else f"{name} (process {pid})" for name, pid in running.items()]
    return no_router(home) + (f"; running: {', '.join(others)}" if others else "")
