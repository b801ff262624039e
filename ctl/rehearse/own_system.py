"""A watchout of a rehearsal's own: in a temporary home, on a free port of loopback, with the embedded session store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import aiohttp

from watchout.common.errors import SettingsError
from watchout.common.settings import Settings, load, table
from watchout.ctl.environment import Failure, WrongSettings, mint
from watchout.ctl.rehearse import processes

#: Settings that the rehearsal sets itself.
FIXED: Final = ("WATCHOUT_HOME", "WATCHOUT_PORT", "WATCHOUT_HOST", "DATABASE_URL", "ML_SERVICE_URL", "WATCHOUT_BUS")
#: Seconds for a gateway to be there, and between two looks.
READY_S: Final = 60.0
LOOK_S: Final = 0.1
SERVERS: Final = ("router", "gateway", "mlbridge")
GATEWAY: Final = "gateway"
USER: Final = "rehearsal"


class OwnSystem:
    """Router, gateway and bridge of a rehearsal. `start` starts them, `close` ends them and removes the home.

    Args:
        given: Settings by name, over the defaults, none of `FIXED`.
        ml_url: The ML service that the bridge asks.
        gateways: How many gateways there are, at one port.

    Raises:
        WrongSettings: A setting is invalid.
    """

    def __init__(self, given: Mapping[str, str], ml_url: str, gateways: int = 1) -> None:
        known = {spec.env for _, spec, _ in table()}
        self._directory = Path(tempfile.mkdtemp(prefix="wo-rehearse-"))
        self._running: dict[str, asyncio.subprocess.Process] = {}
        #: The names of the processes.
        self.names = [*SERVERS, *(f"{GATEWAY}-{number}" for number in range(2, gateways + 1))]
        port = _free_port()
        environ = {
            # Alerts are numbered, and none is to be held back.
            "ALERT_COOLDOWN_S": "0",
            **given,
            "WATCHOUT_HOME": str(self._directory / "home"),
            "WATCHOUT_PORT": str(port),
            "WATCHOUT_HOST": "127.0.0.1",
            "ML_SERVICE_URL": ml_url,
        }
        try:
            self.settings: Settings = load(environ)
        except SettingsError as error:
            shutil.rmtree(self._directory)
            raise WrongSettings(error) from None
        #: The address of its gateway.
        self.url = f"ws://127.0.0.1:{port}"
        ours = known | {"PORT"}
        self._environ = {
            **{
                name: value for name, value in os.environ.items() if name not in ours and not name.startswith("HONCHO_")
            },
            **environ,
        }

    async def start(self) -> str:
        """Start the processes, wait until they are ready, and return a session token.

        Raises:
            Failure: One ended, or is not ready in time; its last lines are in the text.
        """
        token = await asyncio.to_thread(mint, self.settings, USER)
        for name in self.names:
            module = f"watchout.{kind_of(name)}"
            environ = {**self._environ, "WATCHOUT_PROCESS_NAME": name}
            self._running[name] = await processes.start(module, environ=environ, log=self._log(name))
        try:
            async with asyncio.timeout(READY_S), aiohttp.ClientSession() as session:
                while not await self._is_ready(session):
                    self.check()
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise Failure(
                f"the system was not ready within {READY_S:g} s: {processes.last_lines(self._log('gateway'))}"
            ) from None
        return token

    def check(self) -> None:
        """Raise `Failure` when a process of the system has ended."""
        for name, process in self._running.items():
            if process.returncode is not None:
                raise Failure(
                    f"the {name} ended with exit code {process.returncode}: {processes.last_lines(self._log(name))}"
                )

    def pids(self) -> list[tuple[str, int]]:
        """Return name and process id of each process that was started."""
        return [(name, process.pid) for name, process in self._running.items()]

    def signal(self, number: int) -> None:
        """Send a signal to every process that has not ended."""
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def command(self, module: str, *arguments: str) -> int:
        """Run a program with the settings of this system, and return its exit code. It ends when this is cancelled."""
        process = await processes.start(module, *arguments, environ=self._environ, log=Path(os.devnull))
        try:
            return await process.wait()
        finally:
            await processes.end([process])

    async def close(self) -> None:
        """End the processes, and remove the home."""
        await processes.end(self._running.values())
        await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)

    async def _is_ready(self, session: aiohttp.ClientSession) -> bool:
        """Return whether the gateway serves, and the bridge has joined."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with session.get(self.url.replace("ws", "http", 1) + "/health") as response:
                return response.status == 200
        return False

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"


def kind_of(name: str) -> str:
    """Return the kind of a process from its name."""
    return name.partition("-")[0]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
