"""What is sampled of a process: it grows with what the process takes, and with nothing else."""

from __future__ import annotations

import os
import threading

import pytest

from watchout.ctl.rehearse.samples import descriptors, private_bytes, threads

MANY = 40_000_000


def test_memory_that_a_process_takes_is_its_own() -> None:
    before = private_bytes(os.getpid())
    taken = bytearray(b"x") * MANY
    assert private_bytes(os.getpid()) - before > 0.9 * MANY
    del taken


def test_descriptors_and_threads_are_counted() -> None:
    before, ran = descriptors(os.getpid()), threads(os.getpid())
    ends = os.pipe()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert descriptors(os.getpid()) == before + 2
        assert threads(os.getpid()) == ran + 1
    finally:
        stop.set()
        thread.join()
        for end in ends:
            os.close(end)


@pytest.mark.parametrize("count", [private_bytes, descriptors, threads])
def test_a_process_that_is_gone_is_an_error(count: object) -> None:
    assert callable(count)
    with pytest.raises(OSError, match="No such"):
        count(2**22 + 1)
