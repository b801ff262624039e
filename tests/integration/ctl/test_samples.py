"""What is sampled of a process: it grows with what the process takes, and with nothing else."""

from __future__ import annotations

import subprocess
import sys
from subprocess import PIPE

from watchout.ctl.rehearse.samples import descriptors, private_bytes, threads

MANY = 40_000_000
#: A process of its own: in this one other tests leave memory that is used again, and threads that end.
CHILD = f"""
import os, sys, threading
print("waits", flush=True)
sys.stdin.readline()
taken, ends, stop = bytearray(b"x") * {MANY}, os.pipe(), threading.Event()
threading.Thread(target=stop.wait, daemon=True).start()
print("has taken", flush=True)
sys.stdin.readline()
"""


def test_what_a_process_takes_is_counted() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", CHILD], stdin=PIPE, stdout=PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"waits\n"
        before = private_bytes(child.pid), descriptors(child.pid), threads(child.pid)
        child.stdin.write(b"\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"has taken\n"
        after = private_bytes(child.pid), descriptors(child.pid), threads(child.pid)
    assert 0.9 * MANY < after[0] - before[0] < 1.2 * MANY
    assert after[1] == before[1] + 2
    assert after[2] == before[2] + 1
