"""What a process is called in figures, ``stats`` and logs: unique in its home, and the same after a restart.

A process holds the lock of a file ``name-<its name>`` in the home while it lives. The first free number makes a name
unique, so the names of a home are a small fixed set, whatever process ids and host names there are: two containers that
share a home, each with process id 1, are ``gateway`` and ``gateway-2``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from watchout.common.errors import StartError
from watchout.common.home import lock_soon, open_file, who_holds, write_pid
from watchout.common.home_files import NAME_LOCK_PREFIX
from watchout.common.settings import Settings

#: Processes of one name in one home.
MOST_OF_A_NAME: Final = 1_000
#: Open files whose locks this process holds to its end.
_held: Final[list[int]] = []


def wanted_name(settings: Settings, kind: str) -> str:
    """The name that a process of this kind (``gateway`` …) would have if it were alone."""
    return settings.process_name or os.environ.get("HONCHO_PROCESS_NAME") or kind


def claim_name(home: Path, wanted: str) -> str:
    """`wanted`, or that with the lowest number that nobody of this home has; held until this process ends.

    Raises `StartError` when the home cannot be written, or all numbers are taken.
    """
    for number in range(1, MOST_OF_A_NAME + 1):
        name = wanted if number == 1 else f"{wanted}-{number}"
        path = home / f"{NAME_LOCK_PREFIX}{name}"
        if who_holds(path) is not None:
            continue
        fd = open_file(path, os.O_RDWR | os.O_CREAT)
        if not lock_soon(fd):  # somebody was quicker
            os.close(fd)
            continue
        write_pid(fd)
        _held.append(fd)
        return name
    raise StartError(f"{MOST_OF_A_NAME} processes called {wanted} run on WATCHOUT_HOME={home}")


def running(home: Path) -> dict[str, int]:
    """Names of this home's processes that run now, with their process ids (0: unknown); no router has to answer."""
    try:
        names = sorted(path.name for path in home.iterdir() if path.name.startswith(NAME_LOCK_PREFIX))
    except OSError:
        return {}
    held = {name.removeprefix(NAME_LOCK_PREFIX): who_holds(home / name) for name in names}
    return {name: pid for name, pid in held.items() if pid is not None}
