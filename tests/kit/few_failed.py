"""Whether the last run of the tests failed in so few places that the load of the others may be the reason.

A test that waits for a deadline can miss it when several files share two cores. Such a one is run again by itself, and
has to pass then (as CPython's own ``regrtest --rerun`` does it); many at once are a broken build and are not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

MOST = 5


def main() -> int:
    """0 when there were few."""
    failed = json.loads(Path(".pytest_cache/v/cache/lastfailed").read_text())
    for name in sorted(failed):
        print(" ", name)
    return 0 if 0 < len(failed) <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
