"""Tells the service manager that started this process, such as systemd, how the process is (sd_notify(3)).

The datagrams are written here: what there is in Python for them (sdnotify, systemd-python) is either not maintained or
needs libsystemd and a compiler, and the protocol is a few lines.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

_SOCKET: Final = "NOTIFY_SOCKET"
_WATCHDOG: Final = "WATCHDOG_USEC"
_WATCHDOG_PID: Final = "WATCHDOG_PID"
#: Seconds that a message may wait for room in the manager's socket, if it must arrive.
SEND_S: Final = 1.0
#: Longest status in characters; systemd shows one line.
MOST_STATUS: Final = 200


class ServiceManager:
    """The service manager of this process, or nobody: then all methods do nothing.

    It reads and removes what the manager put into the environment, so that no child process speaks for this one.

    Attributes:
        present: whether somebody listens.
        watchdog_s: seconds after which the manager ends a process from which it hears nothing; None: it does not.
    """

    def __init__(self, environ: MutableMapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._address = _address(environ.pop(_SOCKET, ""))
        self.watchdog_s = _watchdog_s(environ.pop(_WATCHDOG, ""), environ.pop(_WATCHDOG_PID, ""))
        if self._address is None:
            self.watchdog_s = None
        self.present = self._address is not None
        self._said = ""
        self._was_ready = False

    def ready(self, status: str) -> None:
        """Say that this process serves."""
        self._was_ready = True
        self._send(f"READY=1\n{self._status(status)}", SEND_S)

    def alive(self) -> None:
        """Say that this process works; within `watchdog_s` each time."""
        self._send("WATCHDOG=1", 0)

    def status(self, status: str) -> None:
        """Say in one line what the process does, for ``systemctl status``; what was said already is not repeated."""
        if status != self._said:
            self._send(self._status(status), 0)

    def reloading(self) -> None:
        """Say that this process reads its settings again; nothing before it was ready."""
        if self._was_ready:
            self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", SEND_S)

    def reloaded(self) -> None:
        """Say that this process is ready again after `reloading`."""
        if self._was_ready:
            self._send("READY=1", SEND_S)

    def stopping(self, status: str, within_s: float) -> None:
        """Say that this process is about to end, and ask for `within_s` seconds, if the manager would wait less."""
        self._send(f"STOPPING=1\n{self._status(status)}\nEXTEND_TIMEOUT_USEC={round(within_s * 1e6)}", SEND_S)

    def _status(self, status: str) -> str:
        self._said = status
        return f"STATUS={' '.join(status.split())[:MOST_STATUS]}"

    def _send(self, text: str, timeout_s: float) -> None:
        """Send one message; one that does not get through is lost, as there is nobody to tell."""
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(timeout_s)
                sender.sendto(text.encode(), self._address)
        except OSError:
            pass


def _address(text: str) -> str | None:
    """Return the address of a manager's socket: a path, or an abstract name, which is written with @."""
    if text.startswith("@") and len(text) > 1:
        return f"\0{text[1:]}"
    return text if text.startswith("/") else None


def _watchdog_s(text: str, pid: str) -> float | None:
    """Return the time of the watchdog in seconds, unless it is that of another process or no time."""
    if pid.strip() not in ("", str(os.getpid())):
        return None
    text = text.strip()
    if not (text.isascii() and text.isdecimal()) or int(text) == 0:
        return None
    return int(text) / 1e6
