"""How much memory a process may have: the smallest limit of its control groups and the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from watchout.common.process.memory import limit_bytes, read_limit

GROUP = "system.slice/watchout-router.service"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:       1024 kB\nMemFree:         512 kB\n")
    return tmp_path / "proc"


def write(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_the_machines_memory_where_no_group_limits_it(proc: Path, tmp_path: Path) -> None:
    (proc / "self/cgroup").write_text(f"0::/{GROUP}\n")
    write(tmp_path / "groups" / GROUP, "memory.max", "max\n")
    assert read_limit(proc, tmp_path / "groups") == 1 << 20


@pytest.mark.parametrize("limited", [GROUP, "system.slice", "."])
def test_the_smallest_limit_on_the_way_to_the_root(proc: Path, tmp_path: Path, limited: str) -> None:
    (proc / "self/cgroup").write_text(f"0::/{GROUP}\n")
    write(tmp_path / "groups" / GROUP, "memory.max", "max\n")
    write(tmp_path / "groups" / limited, "memory.max", "65536\n")
    assert read_limit(proc, tmp_path / "groups") == 65536


def test_control_groups_of_version_1(proc: Path, tmp_path: Path) -> None:
    (proc / "self/cgroup").write_text("5:cpu,cpuacct:/\n4:memory:/docker/7\n1:name=systemd:/x\n0::/\n")
    write(tmp_path / "groups/memory/docker/7", "memory.limit_in_bytes", "4096\n")
    write(tmp_path / "groups/memory", "memory.limit_in_bytes", "9223372036854771712\n")
    assert read_limit(proc, tmp_path / "groups") == 4096


def test_nothing_is_known_where_there_is_no_proc(tmp_path: Path) -> None:
    assert read_limit(tmp_path / "none", tmp_path / "none") is None
    (tmp_path / "meminfo").write_text("MemTotal: much\n")
    assert read_limit(tmp_path, tmp_path) is None


def test_this_process_has_a_limit() -> None:
    assert (limit_bytes() or 0) > 1 << 20
