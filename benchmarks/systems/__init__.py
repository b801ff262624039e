"""The systems that are measured: how each is started, and what the runner and the load must know of it.

One file a system, with one object `SYSTEM` in it; its server program stands beside it. A system that cannot run
here raises `Missing` from `started`, before anything was started.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

from benchmarks.tls import TlsFiles

START_TIMEOUT_S = 20.0
END_TIMEOUT_S = 8.0
LOG_TAIL_BYTES = 2000

Dialect = Literal["watchout", "nchan", "raw"]

ALL: dict[str, str] = {
    "watchout": "watchout",
    "bun": "bun",
    "bun-raw": "bun_raw",
    "ws": "ws",
    "nchan": "nchan",
    "broadcast": "broadcast",
    "floor-uvloop": "floor_uvloop",
    "floor-c": "floor_c",
    "nginx": "behind:NGINX",
    "haproxy": "behind:HAPROXY",
    "caddy": "behind:CADDY",
}
"""Name of each system → its module in this package, in the order of tables; where a module has several, which one."""


class Missing(Exception):
    """This system cannot run here; the text says why and how to get it."""


class Failed(Exception):
    """A system was there but did not start, or ended; the text holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a system is to be started. Only watchout knows more than one way.

    `hosts` > 1: each gateway has a home of its own, as on a host of its own; NATS joins them. `tls`: what clients
    connect to speaks TLS with this certificate. `service_token`: what the ML side sends with its alerts.
    """

    gateways: int = 1
    hosts: int = 1
    ml_url: str | None = None
    ml_fps: float = 2.0
    tls: TlsFiles | None = None
    service_token: str | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A started system.

    Cameras connect to `ports[0]`, viewers to `ports[-1]`. `pids` are the processes whose CPU and memory count; their
    children are counted too. `token` is what the load sends as first message, `None` where nobody asks for one.
    `settings` are those that differ from how the system is shipped; they are listed in the raw result. `has_alerts`: it
    knows alerts.
    """

    ports: tuple[int, ...]
    pids: tuple[int, ...]
    dialect: Dialect
    token: str | None = None
    settings: Mapping[str, str] | None = None
    has_alerts: bool = False


class System(Protocol):
    """One system that can be measured."""

    name: str
    formats: frozenset[str]  # of "json" and "binary"

    def started(self, work: Path, *, options: Options) -> AbstractAsyncContextManager[Running]:
        """The system, ready for clients, with everything that it writes in `work` (an empty directory of its own).

        Ends every process that it started, however the block is left. Raises `Missing` or `Failed`.
        """
        ...


def system(name: str) -> System:
    """The system of this name. Raises `Missing` where its module is not there."""
    module_name, _, which = ALL[name].partition(":")
    try:
        module = importlib.import_module(f"benchmarks.systems.{module_name}")
    except ModuleNotFoundError as e:
        raise Missing(f"{name}: {e.name} is not installed: pip install -e '.[dev]'") from e
    return cast("System", getattr(module, which or "SYSTEM"))


@asynccontextmanager
async def process(
    argv: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str | None] | None = None,
    cwd: Path | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child process with its output in the file `log`; ended with SIGTERM, after `END_TIMEOUT_S` with SIGKILL.

    It is the leader of a process group of its own, and the group ends with it. `env` is laid over the environment
    of this process; `None` removes a variable.
    """
    environ: dict[str, str | None] = {**os.environ, **(env or {})}
    with log.open("wb") as out:
        child = await asyncio.create_subprocess_exec(
            *(str(a) for a in argv),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={name: value for name, value in environ.items() if value is not None},
            cwd=cwd,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        await _end(child)


async def _end(child: asyncio.subprocess.Process) -> None:
    try:
        _tell(child.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_TIMEOUT_S):
                await child.wait()
    finally:  # also when the wait is cancelled, and for what the process left behind in its group
        _tell(child.pid, signal.SIGKILL)
    async with asyncio.timeout(END_TIMEOUT_S):
        await child.wait()


def _tell(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


async def listening(
    port: int, child: asyncio.subprocess.Process, log: Path, timeout_s: float = START_TIMEOUT_S
) -> None:
    """Waits until 127.0.0.1:`port` takes connections. Raises `Failed` when the child ends or `timeout_s` pass."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if child.returncode is not None:
                raise Failed(f"it ended with {child.returncode} before it listened:\n{tail(log)}") from None
            if loop.time() > deadline:
                raise Failed(f"nothing listens on {port} after {timeout_s:.0f} s:\n{tail(log)}") from None
            await asyncio.sleep(0.05)
            continue
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return


def tail(log: Path) -> str:
    """The last lines of a log."""
    try:
        return log.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace").strip() or "(its log is empty)"
    except OSError:
        return "(no log)"
