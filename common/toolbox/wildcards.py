"""Patterns of stream ids with ``*`` and ``?`` only, matched in time linear in the id, whatever the pattern. Pure.

`common.toolbox.globs` has the patterns of operators, with brackets; these come from outside, in tokens, and a regular
expression could be made to take exponential time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

MAX_PATTERNS: Final = 64
MAX_PATTERN_CHARS: Final = 128
#: Characters of stream ids, and the two wildcards.
PATTERN: Final = r"^[A-Za-z0-9_.:*?-]{1,128}\Z"
_PATTERN: Final = re.compile(PATTERN)


def fault(patterns: Sequence[object]) -> str | None:
    """Return what is wrong with these patterns, as a phrase that follows "expected"; None when they can be used."""
    if len(patterns) > MAX_PATTERNS:
        return f"at most {MAX_PATTERNS} patterns"
    for pattern in patterns:
        if not isinstance(pattern, str) or not _PATTERN.match(pattern):
            return f"patterns of 1 to {MAX_PATTERN_CHARS} characters A-Z a-z 0-9 _ . : - * ?"
    return None


@lru_cache(maxsize=8192)
def any_matches(patterns: tuple[str, ...], stream: str) -> bool:
    """Return whether a stream id matches one of the patterns as a whole; upper and lower case differ."""
    return any(matches(pattern, stream) for pattern in patterns)


def matches(pattern: str, text: str) -> bool:
    """Return whether a text matches a pattern as a whole: ``*`` stands for any characters, ``?`` for one.

    It simulates the automaton of the pattern with one bit for each state, so that a character costs a few operations on
    integers of as many bits as the pattern has characters.
    """
    loops, anything = 0, 0
    steps: dict[str, int] = {}
    length = 0
    for sign in pattern:
        if sign == "*":
            loops |= 1 << length
        else:
            length += 1
            if sign == "?":
                anything |= 1 << length
            else:
                steps[sign] = steps.get(sign, 0) | 1 << length
    states = 1
    for character in text:
        states = ((states << 1) & (steps.get(character, 0) | anything)) | (states & loops)
        if not states:
            return False
    return bool(states >> length & 1)
