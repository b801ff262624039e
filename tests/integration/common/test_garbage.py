"""How many new objects wait for a collection in a process that replaces old ones."""

from __future__ import annotations

import subprocess
import sys

from watchout.common.process.garbage import PIECES, THRESHOLDS

#: A process in which each new object takes the place of an old one, so that Python itself sees no reason to look.
REPLACES = f"""
import gc
from watchout.common.process import garbage
kept = [[number] for number in range(20_000)]
garbage.relax()
assert gc.get_threshold() == {THRESHOLDS}
assert gc.get_freeze_count() > 20_000, "what the start made is examined again"
kept = [[number] for number in range(20_000)]
gc.collect()
most = 0
for number in range(len(kept)):
    kept[number] = [number]
    if number % 10 == 9:
        most = max(most, len(gc.get_objects(0)) + len(gc.get_objects(1)))
        garbage.worked()
print(most)
"""


def test_few_new_objects_wait_where_each_takes_the_place_of_an_old_one() -> None:
    done = subprocess.run([sys.executable, "-c", REPLACES], capture_output=True, text=True, timeout=60, check=True)
    assert PIECES * 10 - 100 <= int(done.stdout) <= PIECES * 10 + 500
