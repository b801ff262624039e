"""How many files and sockets this process may have open."""

from __future__ import annotations

import contextlib
import resource

#: No system gives more that is of use; asked for by a limit that is infinite.
MOST = 1 << 20


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one, as far as that is allowed; the limit that holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS has another, lower one
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if soft == resource.RLIM_INFINITY else int(soft)
