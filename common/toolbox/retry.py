"""When to try again: the pause before the next attempt, and what a ``Retry-After`` header asks for. Pure."""

from __future__ import annotations

from typing import Final

#: The part of a pause that is left to chance, so that clients which failed together do not come back together.
JITTER: Final = 0.5
#: A ``Retry-After`` with more characters is ignored; a date in HTTP has 29.
MAX_RETRY_AFTER_CHARS: Final = 64
#: Past so many doublings a pause has reached any bound that is in use; it keeps the power of two finite.
_MAX_DOUBLINGS: Final = 16


def backoff_s(retries: int, *, first_s: float, most_s: float, chance: float = 1.0, jitter: float = JITTER) -> float:
    """Return the pause before the next attempt, in seconds.

    The pause starts at `first_s`, doubles with each retry and stays at `most_s`; `chance` then places it between
    half of that (or less, see `jitter`) and all of it.

    Args:
        retries: Attempts that were repeated so far, from 0.
        first_s: The pause before the first retry, in seconds.
        most_s: The longest pause, in seconds.
        chance: A random number between 0 (the shortest pause) and 1 (the whole pause).
        jitter: The part of the pause that is left to chance; 1: all of it, for clients that come in thousands.
    """
    pause_s = min(most_s, first_s * 2.0 ** min(retries, _MAX_DOUBLINGS))
    return pause_s * (1 - jitter * (1 - chance))


def read_retry_after(value: str | None, now_s: float, *, most_s: float) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, between 0 and `most_s` (RFC 9110 section 10.2.3).

    Args:
        value: The header: whole seconds or a date; None when there is none.
        now_s: The time in seconds since the Unix epoch, from which a date counts.
        most_s: The upper bound of the result; a server that asks for more gets this.

    Returns:
        None when there is no such header or it is neither seconds nor a date. Never raises.
    """
    if value is None or len(value) > MAX_RETRY_AFTER_CHARS:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        wait_s = float(text)
    else:
        from datetime import UTC
        from email.utils import parsedate_to_datetime  # few processes ever read a date

        try:
            date = parsedate_to_datetime(text)
            wait_s = (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp() - now_s
        except (ValueError, TypeError, OverflowError, OSError, IndexError):
            return None
    return min(max(wait_s, 0.0), most_s)
