"""A memory limit of the kernel for some processes (a memory cgroup, version 1 or 2). Needs root."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.kit.control_groups import group_below
from tests.kit.services import missing

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


class Group:
    """Processes that share a limit."""

    def __init__(self, path: Path, limit: Path) -> None:
        self._path = path
        self._limit = limit
        #: A process that writes its id there is under the limit.
        self.processes = path / "cgroup.procs"

    def add(self, pid: int) -> None:
        """Put a process under the limit, with all that it allocates from now on; at the end it is taken out."""
        self.processes.write_text(str(pid))

    def set_limit(self, limit_bytes: int) -> None:
        """Another limit, while the processes run: at most the first one."""
        self._limit.write_text(str(limit_bytes))


@contextlib.contextmanager
def limited(limit_bytes: int) -> Iterator[Group]:
    """A group whose processes may have so many bytes together; past it the kernel kills one of them."""
    is_v1 = (_V1 / "memory.limit_in_bytes").exists() or (_V1 / "cgroup.procs").exists()
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(group_below(_V1 if is_v1 else _V2))
        except OSError as error:
            missing(f"no memory cgroup can be made here ({error.strerror}); it takes root")
        limit = path / ("memory.limit_in_bytes" if is_v1 else "memory.max")
        if not limit.exists():
            missing("the memory controller of cgroup v2 is not handed down here (cgroup.subtree_control)")
        limit.write_text(str(limit_bytes))
        swap = path / ("memory.memsw.limit_in_bytes" if is_v1 else "memory.swap.max")
        if swap.exists():
            with contextlib.suppress(OSError):  # without swap accounting
                swap.write_text(str(limit_bytes) if is_v1 else "0")
        yield Group(path, limit)
