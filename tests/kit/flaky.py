"""Tells flaky tests from broken ones after a failed run: what failed runs once more, alone.

A test that passes alone is flaky, which is a defect as well: the run has failed, unless the test is listed in
tests/flaky.txt. Run by `make test`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Final

LIST: Final = Path("tests/flaky.txt")
LAST_FAILED: Final = Path(".pytest_cache/v/cache/lastfailed")
#: So many failures are a broken build and are not run again.
MOST: Final = 20


def listed(text: str) -> set[str]:
    """The node ids of the list."""
    return {line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")}


def verdict(failed: Collection[str], still_failing: Collection[str], known: Collection[str]) -> tuple[list[str], bool]:
    """What to print of a run, and whether it counts as passed: when all that failed is flaky and known to be."""
    broken, flaky = sorted(set(failed) & set(still_failing)), sorted(set(failed) - set(still_failing))
    lines = [f"broken: {name}" for name in broken]
    lines += [f"flaky, {'known' if name in known else 'not listed in ' + str(LIST)}: {name}" for name in flaky]
    return lines, not broken and set(flaky) <= set(known)


def _failed() -> list[str]:
    return sorted(json.loads(LAST_FAILED.read_text())) if LAST_FAILED.exists() else []


def main() -> int:
    """0 when only known flaky tests failed."""
    failed = _failed()
    if not 0 < len(failed) <= MOST:
        print(f"{len(failed)} tests failed, none is run again")
        return 1
    again = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--last-failed", "--last-failed-no-failures", "none", "--no-header"],
        check=False,
    )
    still_failing = _failed() if again.returncode else []
    lines, passed = verdict(failed, still_failing, listed(LIST.read_text()))
    print("\n".join(lines))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
