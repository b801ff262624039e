"""Patterns of stream ids as in `fnmatch`: ``*``, ``?``, ``[a-c]``, ``[!a-c]``; upper and lower case differ. Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import Final

MAX_PATTERNS: Final = 64
MAX_PATTERN_CHARS: Final = 128
#: Characters of stream ids, and the signs of a pattern; a bracket that does not end matches no id.
PATTERN: Final = r"^(?:[A-Za-z0-9_.:*?-]|\[!?[A-Za-z0-9_.:-]+\])+\Z"
_PATTERN: Final = re.compile(PATTERN)


def fault(patterns: Iterable[str]) -> str | None:
    """Return what is wrong with these patterns, as a phrase that follows "expected"; None when they can be used."""
    known = list(patterns)
    if not 0 < len(known) <= MAX_PATTERNS:
        return f"1 to {MAX_PATTERNS} patterns, which are {len(known)}"
    for pattern in known:
        if len(pattern) > MAX_PATTERN_CHARS:
            return f"patterns of at most {MAX_PATTERN_CHARS} characters, one has {len(pattern)}"
        if not _PATTERN.match(pattern):
            return f"patterns of A-Z a-z 0-9 _ . : - with * ? [abc] [!abc], which {pattern!r} is not"
    return None


class Globs:
    """Several patterns of stream ids, compiled. A stream matches when it matches one of them, or when there are none.

    Args:
        patterns: Patterns that `fault` accepts.
    """

    __slots__ = ("_tests", "patterns")

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self.patterns = tuple(patterns)
        self._tests = [re.compile(fnmatch.translate(pattern)).match for pattern in self.patterns]

    def match(self, stream: str) -> bool:
        """Return whether a stream id matches."""
        return not self._tests or any(test(stream) for test in self._tests)
