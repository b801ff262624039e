"""Limits of the operating system: open files of a gateway, and connections that wait to be accepted."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from watchout.ctl.doctor.findings import Finding, ok, warning

#: Files that a gateway has open besides its connections, and those of connections that are just closing.
SPARE_FILES: Final = 128
#: Connections that may wait for a gateway to accept them (`gateway.listen.port`); the kernel lowers it to its limit.
BACKLOG: Final = 4096


def check_open_files(gateways: Sequence[int], max_connections: int) -> Finding:
    """Return the finding on the open-file limit: of the first gateway whose limit can be read, else of this process."""
    for pid in gateways:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            soft, _ = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            return judge_open_files(soft, f"The gateway (process {pid})", max_connections)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return judge_open_files(soft, "A process started from here", max_connections)


def check_backlog() -> Iterator[Finding]:
    """Yield the finding on ``net.core.somaxconn``, none where it cannot be read or is sufficient."""
    with contextlib.suppress(OSError, ValueError):
        yield from judge_backlog(int(Path("/proc/sys/net/core/somaxconn").read_text("ascii")))


def judge_open_files(limit: int, whose: str, max_connections: int) -> Finding:
    """Return whether `limit` open files (-1: no limit) are enough for `max_connections`. Pure."""
    facts = {"openFiles": limit, "maxConnections": max_connections}
    needed = max_connections + SPARE_FILES
    if limit < 0 or limit >= needed:
        shown = "any number of" if limit < 0 else str(limit)
        return ok("ports", f"{whose} may open {shown} files, enough for MAX_CONNECTIONS={max_connections}.", **facts)
    return warning(
        "ports",
        f"{whose} may open {limit} files, enough for some {max(0, limit - SPARE_FILES)} connections and not for "
        f"MAX_CONNECTIONS={max_connections}.",
        f"Raise it to {needed} (ulimit -n, LimitNOFILE= of systemd), or lower MAX_CONNECTIONS.",
        **facts,
    )


def judge_backlog(somaxconn: int) -> Iterator[Finding]:
    """Yield a warning where the kernel lets fewer connections wait to be accepted than the gateway does. Pure."""
    if somaxconn < BACKLOG:
        yield warning(
            "ports",
            f"net.core.somaxconn is {somaxconn}: when thousands of clients reconnect at once, those beyond it have to "
            "retry.",
            f"sysctl -w net.core.somaxconn={BACKLOG}",
            somaxconn=somaxconn,
        )
