"""Runs a command and stops one of its processes for a moment, again and again, to find tests that race.

``python -m tests.kit.stalls pytest tests/e2e``: what a busy machine does to a test now and then happens here all the
time. A process that is stopped by something else is left alone; a test that stops processes itself (SIGSTOP) may still
see one go on too early.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import Final

import psutil

#: Mean time between two stalls, and the shortest and longest stall, in seconds.
BETWEEN_S: Final = 0.1
SHORTEST_S: Final = 0.02
LONGEST_S: Final = float(os.environ.get("WATCHOUT_TEST_STALL_S", "0.5"))
#: A command that is interrupted has so many seconds to say what it found.
ENDS_S: Final = 30.0


def stall(process: psutil.Process, seconds: float) -> None:
    """Stop a process for so long; one that ended, or that is stopped already, is left alone."""
    try:
        if process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            return
        process.suspend()
        try:
            time.sleep(seconds)
        finally:
            process.resume()
            parent = process.parent()
            if parent is not None and parent.name() == "nsenter":  # it has stopped itself with its child, and stays so
                parent.resume()
    except psutil.NoSuchProcess:
        return


def length(chance: random.Random) -> float:
    """Seconds of one stall: mostly short, as on a busy machine."""
    return float(SHORTEST_S + (LONGEST_S - SHORTEST_S) * chance.random() ** 3)


def main(argv: list[str]) -> int:
    """Run the command to its end; its exit code."""
    chance = random.Random()
    signal.signal(signal.SIGTERM, _interrupt)
    command = subprocess.Popen(argv, start_new_session=True)
    root = psutil.Process(command.pid)
    try:
        while command.poll() is None:
            time.sleep(chance.expovariate(1 / BETWEEN_S))
            try:
                processes = [root, *root.children(recursive=True)]
            except psutil.NoSuchProcess:
                break
            stall(chance.choice(processes), length(chance))
    except KeyboardInterrupt:
        os.killpg(command.pid, signal.SIGINT)
        try:
            return command.wait(ENDS_S)
        except subprocess.TimeoutExpired:
            os.killpg(command.pid, signal.SIGKILL)
    return command.wait()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
