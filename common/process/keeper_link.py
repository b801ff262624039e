"""The link of a process to its keeper (`common.process.keeper`): reports readiness and exit code, receives the end.

When the keeper is killed, the process serves on and starts another keeper, so that it is still restarted when it dies,
and still ended when honcho is gone.
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
from watchout.common.process.link import receive, send
from watchout.common.process.restarts import END, EXIT, READY, STATE_VARIABLE

_log = log.get("common.process.keeper_link")


class KeeperLink:
    """A process's end of the socket pair to its `Keeper`: reports that the process is ready, and receives the order to
    end.

    `common.service` creates one in each process. The keeper passes the socket in the environment (`STATE_VARIABLE`).
    Without a keeper all methods do nothing.
    """

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
        """Call `on_end` in the running loop when the keeper asks the process to end."""
        self._on_end = on_end
        if self._link is not None:
            asyncio.get_running_loop().add_reader(self._link.fileno(), self._on_readable)

    def ready(self) -> None:
        """Report that this process serves."""
        self._ready = True
        send(self._link, READY)

    def exits(self, code: int) -> None:
        """Report the code with which this process is about to exit."""
        send(self._link, EXIT + bytes([code]))

    def detach(self) -> None:
        """Stop listening to the keeper, because the loop is about to end."""
        if self._link is not None:
            asyncio.get_running_loop().remove_reader(self._link.fileno())

    def _on_readable(self) -> None:
        assert self._link is not None
        data = receive(self._link)
        if data is None:
            return
        if END in data:
            self._on_end()
        elif not data:
            self._replace()

    def _replace(self) -> None:
        """Start another keeper after the first was killed; end the process if that fails."""
        assert self._link is not None
        assert self._state is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._link.fileno())
        self._link.close()
        self._link = None
        if self._helper is not None:
            self._helper.poll()  # reap the last one
        ours, theirs = socket.socketpair()
        state = {**self._state, "fd": theirs.fileno(), "pid": os.getpid()}
        try:
            self._helper = subprocess.Popen(
                # -P: do not import packages from the current directory.
                [sys.executable, "-P", "-m", "watchout.common.process.keeper"],
                env={**os.environ, STATE_VARIABLE: json.dumps(state)},
                pass_fds=[theirs.fileno()],
            )
        except OSError as exc:
            _log.error("the keeper of this process was killed, and another one cannot be started", reason=exc.strerror)
            ours.close()
            self._on_end()
            return
        finally:
            theirs.close()
        _log.warning("the keeper of this process was killed; another one took over", pid=self._helper.pid)
        ours.setblocking(False)
        self._link = ours
        loop.add_reader(ours.fileno(), self._on_readable)
