"""The name of a process in metrics, ``stats`` and logs: unique in its home, and the same after a restart.

A process locks the file ``name-<its name>`` in the home while it runs. A taken name gets the lowest free number, so a
home has a small fixed set of names, independent of process ids and host names: two containers that share a home, each
with process id 1, are ``gateway`` and ``gateway-2``.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

from watchout.common.errors import StartError
from watchout.common.home import lock_soon, open_file, who_holds, write_pid
from watchout.common.home_files import NAME_LOCK_PREFIX
from watchout.common.settings import Settings

#: Most processes of one name in one home.
MOST_OF_A_NAME: Final = 1_000
#: Descriptors of the files that this process has locked; they stay open until it ends.
_held: Final[list[int]] = []


def wanted_name(settings: Settings, kind: str) -> str:
    """Return the name that a process of this kind (``gateway`` …) gets if no other has it."""
    return settings.process_name or os.environ.get("HONCHO_PROCESS_NAME") or kind


def member_name(settings: Settings, kind: str) -> str:
    """Return the name under which a process of this kind joins the bus: with its host, where members are on several."""
    name = wanted_name(settings, kind)
    remote = settings.bus or (kind == "mlbridge" and settings.router_address is not None)
    return f"{name}@{socket.gethostname()}"[:255] if remote else name


def claim_name(home: Path, wanted: str) -> str:
    """Lock and return the name `wanted`, or that name with the lowest free number, until this process ends.

    Raises `StartError` if the home cannot be written or all numbers are taken.
    """
    for number in range(1, MOST_OF_A_NAME + 1):
        name = wanted if number == 1 else f"{wanted}-{number}"
        path = home / f"{NAME_LOCK_PREFIX}{name}"
        if who_holds(path) is not None:
            continue
        fd = open_file(path, os.O_RDWR | os.O_CREAT)
        if not lock_soon(fd):  # another process was faster
            os.close(fd)
            continue
        write_pid(fd)
        _held.append(fd)
        return name
    raise StartError(f"{MOST_OF_A_NAME} processes called {wanted} run on WATCHOUT_HOME={home}")


def running(home: Path) -> dict[str, int]:
    """Return the process id by name (0: unknown) of the running processes of this home; works without a router."""
    try:
        names = sorted(path.name for path in home.iterdir() if path.name.startswith(NAME_LOCK_PREFIX))
    except OSError:
        return {}
    held = {name.removeprefix(NAME_LOCK_PREFIX): who_holds(home / name) for name in names}
    return {name: pid for name, pid in held.items() if pid is not None}
