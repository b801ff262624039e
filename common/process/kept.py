"""The side of a process that is kept (`common.process.keeper`): says that it is ready and how it ends, and hears that
it is to.

When the keeper was killed the process goes on serving and starts another keeper, so that it is still started again when
it dies, and still ends when honcho is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from watchout.common import log
from watchout.common.process.restarts import END, EXIT, READY, STATE_VARIABLE

_log = log.get("common.process.kept")


class Kept:
    """One process's tie to its keeper; without one, all of this does nothing."""

    def __init__(self) -> None:
        self._state: dict[str, Any] | None = None
        self._link: socket.socket | None = None
        self._helper: subprocess.Popen[bytes] | None = None
        self._on_end: Callable[[], None] = lambda: None
        self._ready = False
        raw = os.environ.pop(STATE_VARIABLE, "")
        if raw:
            with contextlib.suppress(ValueError, KeyError, OSError, TypeError):
                self._state = json.loads(raw)
                self._link = socket.socket(fileno=self._state["fd"])
                self._link.setblocking(False)
                os.set_inheritable(self._link.fileno(), False)

    def attach(self, on_end: Callable[[], None]) -> None:
        """From now on `on_end` is called in the running loop when the keeper says so."""
        self._on_end = on_end
        if self._link is not None:
            asyncio.get_running_loop().add_reader(self._link.fileno(), self._came)

    def ready(self) -> None:
        """Tell that this process serves."""
        self._ready = True
        self._tell(READY)

    def exits(self, code: int) -> None:
        """Tell with which code it is about to exit."""
        self._tell(EXIT + bytes([code]))

    def detach(self) -> None:
        """The loop is about to end."""
        if self._link is not None:
            asyncio.get_running_loop().remove_reader(self._link.fileno())

    def _tell(self, message: bytes) -> None:
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.send(message)

    def _came(self) -> None:
        assert self._link is not None
        try:
            said = self._link.recv(64)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if END in said:
            self._on_end()
        elif not said:
            self._replace()

    def _replace(self) -> None:
        """The keeper was killed: start another one, or end when that is not possible."""
        assert self._link is not None
        assert self._state is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._link.fileno())
        self._link.close()
        self._link = None
        if self._helper is not None:
            self._helper.poll()  # so that the last one does not stay a zombie
        ours, theirs = socket.socketpair()
        state = {**self._state, "fd": theirs.fileno(), "pid": os.getpid()}
        try:
            self._helper = subprocess.Popen(
                # -P: a folder called common where this was started is not ours.
                [sys.executable, "-P", "-m", "watchout.common.process.keeper"],
                env={**os.environ, STATE_VARIABLE: json.dumps(state)},
                pass_fds=[theirs.fileno()],
            )
        except OSError as exc:
            _log.error("the keeper of this process was killed, and no other can be started", reason=exc.strerror)
            ours.close()
            self._on_end()
            return
        finally:
            theirs.close()
        _log.warning("the keeper of this process was killed; another one took over", pid=self._helper.pid)
        ours.setblocking(False)
        self._link = ours
        loop.add_reader(ours.fileno(), self._came)
