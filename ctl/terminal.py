"""Output of the commands: escaped text, numbers for people, and lines above one refreshed status line."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.text import Text

#: Shortest time between two refreshes of the status line, in seconds.
REFRESH_EVERY_S: Final = 0.1
#: Styles of severities, and of the states of a stream.
STYLES: Final = {"low": "cyan", "medium": "yellow", "high": "bold red", "critical": "bold white on red"}
STATUS_STYLES: Final = {"streaming": "green", "online": "yellow", "offline": "bright_black"}
#: Longest text from outside that is shown, in characters.
MAX_SHOWN: Final = 1000


def printable(value: object) -> str:
    """Return text from outside on one line: control characters escaped, cut to `MAX_SHOWN` characters."""
    text = str(value)
    if len(text) > MAX_SHOWN:
        text = text[:MAX_SHOWN] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def clock(timestamp: object) -> str:
    """Return the local time of day of a timestamp in ms since 1970; ``--:--:--`` for anything else."""
    if isinstance(timestamp, int | float) and not isinstance(timestamp, bool):
        try:
            return datetime.fromtimestamp(timestamp / 1000).astimezone().strftime("%H:%M:%S")
        except (ValueError, OverflowError, OSError):
            pass
    return "--:--:--"


def size(count: float) -> str:
    """Return a number of bytes with its unit: 940 B, 27.1 kB, 3.4 MB."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.5:
            return f"{count:.1f} {unit}" if count < 100 else f"{count:.0f} {unit}"
    return f"{count / 1000:.1f} TB"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: 1 frame, 2 frames."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def alert_line(alert: dict[str, Any]) -> Text:
    """Return an alert message as one styled line."""
    severity = printable(alert.get("severity", "?"))
    line = Text(f"{clock(alert.get('timestamp'))} ")
    line.append(f"ALERT {severity}", STYLES.get(severity, "bold"))
    line.append(f" {printable(alert.get('streamId', ''))}: {printable(alert.get('message', ''))}")
    notes = [f"frame {alert['frameId']}"] if isinstance(alert.get("frameId"), int) else []
    metadata = alert.get("metadata")
    if isinstance(metadata, dict):
        notes += [f"{printable(k)}={printable(v)}" for k, v in list(metadata.items())[:8]]
    if notes:
        line.append(f" ({', '.join(notes)})", "bright_black")
    return line


class Screen:
    """The output of a long-running command: lines, and on a terminal a status line below them that is refreshed.

    Each command creates its own. Without a terminal only lines are written, each at once.
    """

    def __init__(self) -> None:
        self._out = Console(highlight=False, soft_wrap=True)
        self._err = Console(highlight=False, soft_wrap=True, stderr=True)
        self.live = self._out.is_terminal and not self._out.is_dumb_terminal
        self._shown = ""
        self._shown_at = float("-inf")

    def line(self, text: Text | str) -> None:
        """Print a line to stdout, above the status line."""
        self._above(self._out, text)

    def note(self, text: Text | str) -> None:
        """Print a line to stderr, above the status line."""
        self._above(self._err, text)

    def refresh(self, text: str, *, force: bool = False) -> None:
        """Show `text` in the status line; does nothing within `REFRESH_EVERY_S` of the last time, unless `force`."""
        now = time.monotonic()
        if self.live and (force or now - self._shown_at >= REFRESH_EVERY_S):
            self._shown_at = now
            self._shown = text[: max(self._out.width - 1, 1)]
            self._write(f"\r\x1b[2K{self._shown}")

    def close(self) -> None:
        """Move below the status line, which stays as it is."""
        if self._shown:
            self._shown = ""
            self._write("\n")

    def _above(self, console: Console, text: Text | str) -> None:
        if self._shown:
            self._write("\r\x1b[2K")
        console.print(text if isinstance(text, Text) else Text(text), no_wrap=True, overflow="ignore", crop=False)
        if self._shown:
            self._write(self._shown)

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
