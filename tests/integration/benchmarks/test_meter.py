"""The meter against processes that say themselves what they used."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks import meter

BURN = """
import sys, threading, time
def burn():
    while time.process_time() < 0.3:
        sum(range(1000))
thread = threading.Thread(target=burn)
thread.start()
thread.join()
print(time.process_time_ns(), flush=True)
sys.stdin.read()
"""
GROW = """
import sys
print("small", flush=True)
sys.stdin.readline()
held = b"x" * (64 << 20)
print("large", flush=True)
sys.stdin.read()
"""
FAMILY = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"],
                         stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
child.wait()
"""


@contextlib.contextmanager
def python(program: str) -> Iterator[subprocess.Popen[str]]:
    """A process that lives until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            child.stdin.close()
            try:
                child.wait(20)
            finally:
                child.kill()


def test_cpu_time_counts_threads_that_have_ended():
    with python(BURN) as child:
        said_s = int(child.stdout.readline()) / 1e9
        assert said_s >= 0.3
        assert said_s <= meter.cpu_s(child.pid) < said_s + 0.3
        (use,) = meter.cpu([child.pid])
        assert (use.pid, use.name) == (child.pid, meter.name(child.pid))
        assert use.cpu_s >= said_s


def test_the_whole_machine_worked_at_least_as_much_as_one_process():
    before = meter.machine_busy_s()
    with python(BURN) as child:
        assert int(child.stdout.readline()) >= 0.3e9
    assert meter.machine_busy_s() > before


def test_memory_that_a_process_touched_is_resident():
    with python(GROW) as child:
        assert child.stdout.readline() == "small\n"
        before = meter.pss([child.pid])
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "large\n"
        assert 60 << 20 <= meter.pss([child.pid]) - before <= 80 << 20


def test_children_are_found_and_counted_once():
    with python(FAMILY) as parent:
        child = int(parent.stdout.readline())
        assert meter.with_children([parent.pid]) == (parent.pid, child)
        assert meter.with_children([child, parent.pid]) == (child, parent.pid)
        assert os.getpid() in meter.with_children([os.getpid()])


@pytest.mark.parametrize("read", [meter.cpu_s, meter.name, meter.pss_bytes, lambda pid: meter.with_children([pid])])
def test_a_process_that_is_gone_is_said_by_its_id(read):
    with python("print('up', flush=True)") as child:
        pid = child.pid
    with pytest.raises(meter.Gone, match=str(pid)):
        read(pid)
