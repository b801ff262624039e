"""Write the table of docs/monitoring.md from what `make test-rules` saw: `python -m tests.rules FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.rules.breakage import read, silent_arms
from tests.rules.page import PAGE, with_outcomes


def main() -> None:
    """Write it."""
    outcomes, rules, seen = read(Path(sys.argv[1]))
    if silent := silent_arms(rules, seen):
        sys.exit("\n".join(silent))
    PAGE.write_text(with_outcomes(PAGE.read_text(), outcomes))
    print(f"{len(outcomes)} alerts fired and ended: {PAGE}")


if __name__ == "__main__":
    main()
