"""Loads structlog without rich, whose tracebacks in colour no process of watchout prints.

Where rich is installed, structlog loads it with all that it needs: a fifth of what a router loads. Everything of
watchout that logs has structlog from here.
"""

from __future__ import annotations

import sys

if "rich" in sys.modules:
    import structlog
else:
    sys.modules["rich"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        import structlog
    finally:
        del sys.modules["rich"]

__all__ = ["structlog"]
