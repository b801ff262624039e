"""The load as a process: `python -m benchmarks.load`.

Takes a `Plan` as JSON on standard input, gives its result as JSON on standard output, and says on standard error when
the measured time begins and ends (`MARKS`). Cameras keep to their schedule whatever the server does (open loop).
Every frame that comes is compared with what was sent, byte for byte.
"""

from __future__ import annotations

import gc
import sys

import msgspec
import uvloop

from benchmarks.load.model import LoadFault, Plan
from benchmarks.load.run import Run


def main() -> int:
    """Standard input → standard output; 1 and a sentence on standard error when the run failed."""
    try:
        plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
        gc.disable()  # a pause here would be counted as the server's latency
        result = uvloop.run(Run(plan).result())
    except (LoadFault, msgspec.MsgspecError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
