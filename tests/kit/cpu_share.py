"""A share of one core for some processes (a CPU control group, version 1 or 2). Needs root."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.kit.control_groups import group_below
from tests.kit.services import not_permitted

_V1, _V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
_PERIOD_US: Final = 50_000


@contextlib.contextmanager
def slowed(pid: int, share: float) -> Iterator[Callable[[], float]]:
    """While the block lasts, a process has this share of a core at most. Gives for how long it was held back, in s."""
    is_v1 = (_V1 / "cpu.cfs_quota_us").exists() or (_V1 / "cgroup.procs").exists()
    above = _V1 if is_v1 else _V2
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(group_below(above))
        except OSError as error:
            not_permitted(f"no CPU control group can be made ({error.strerror})")
        quota = round(share * _PERIOD_US)
        limit = path / ("cpu.cfs_quota_us" if is_v1 else "cpu.max")
        if not limit.exists():
            not_permitted("the CPU controller is not handed down (cgroup.subtree_control)")
        if is_v1:
            (path / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        limit.write_text(str(quota) if is_v1 else f"{quota} {_PERIOD_US}")
        (path / "cgroup.procs").write_text(str(pid))
        yield lambda: _waited_s((path / "cpu.stat").read_text())


def _waited_s(stat: str) -> float:
    """The periods in which it was held back, in seconds."""
    (periods,) = re.findall(r"^nr_throttled (\d+)$", stat, re.MULTILINE)
    return int(periods) * _PERIOD_US / 1e6
