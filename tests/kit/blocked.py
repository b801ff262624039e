"""A watchout process whose event loop stands still for a while when it gets SIGUSR1, while its other threads go on.

A stopped process (SIGSTOP) answers nobody. One whose loop is blocked still answers heartbeats of ZeroMQ's I/O thread.
"""

import importlib
import os
import signal
import sys
import time


def block(_number: int, _frame: object) -> None:
    """Stand still."""
    time.sleep(float(os.environ["BLOCK_S"]))


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, block)
    name = sys.argv.pop(1)
    importlib.import_module(f"watchout.{name}.app").main()
