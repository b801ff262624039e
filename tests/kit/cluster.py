"""A site of three hosts with addresses of their own: NATS servers, routers, gateways and a bridge as real processes.

Every host has a home, certificates of the cluster's authority, and a nats-server of a cluster of three. The session
store is one file that all of them read, in the place of the database that hosts share. The test process is the camera,
the viewers and the ML service: it reaches every host, whatever the hosts do not reach of each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.kit.clients import Answer, Camera, Clients, Viewer, eventually, http
from tests.kit.hosts import Host, Hosts, hosts
from tests.kit.nats_servers import NatsServer, NatsSite
from tests.kit.processes import JOINED, REPOSITORY, SERVERS, Watchout, poll
from watchout.common.home_files import SESSION_STORE_FILE
from watchout.ctl import cluster_keys
from watchout.identity.embedded_store import mint_token

#: What must come gets this long: the machine may be busy with other tests.
COMES_S: Final = 40.0
DEPLOYED: Final = REPOSITORY / "deploy" / "three-hosts"
GATEWAY_PORT: Final = 3000
#: The figures that the product promises are held exactly where the machine is one's own (`make test-cluster`); else
#: they may be longer by this factor.
PATIENCE: Final = 1.0 if os.environ.get("WATCHOUT_TEST_FIGURES") else 8.0
#: No viewer may wait longer for a frame because something else ends.
GAP_S: Final = 0.3 * PATIENCE


def told(what: str, seconds: float) -> None:
    """Say what was measured (`pytest -s`)."""
    print(f"{what}: {seconds:.3f} s")


def deployed(file: str, made: Hosts, home: Path) -> str:
    """A file of `deploy/three-hosts` with the addresses and the folder of the test in place of those it names."""
    text = (DEPLOYED / file).read_text(encoding="utf-8").replace("/var/lib/watchout", str(home))
    return re.sub(r"10\.77\.0\.([123])\b", lambda found: made[int(found[1]) - 1].address, text)


def variables(text: str) -> dict[str, str]:
    """The variables of a ``.env`` file."""
    lines = (line.partition("=") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in lines}


class DeployedServer(NatsServer):
    """A NATS server with the file of `deploy/three-hosts`, whose monitoring the test reaches; `config` is its text."""

    def _written(self) -> str:
        local = 'http: "127.0.0.1:8222"'
        assert local in self.config
        return self.config.replace(local, f'http: "{self.host}:{self.monitor_port}"')


class Site:
    """Three hosts as `deploy/three-hosts` has them; processes are started by `start`, hosts lost by `lose`."""

    def __init__(self, made: Hosts, *, environ: Mapping[str, str], expected: Sequence[str]) -> None:
        self.hosts = made
        self._directory = Path(tempfile.mkdtemp(prefix="wo-"))  # short: the paths of sockets are
        self._store = self._directory / SESSION_STORE_FILE
        mint_token(self._store, None, 86_400.0)
        now = datetime.now(UTC)
        keys = self._directory / "keys"
        cluster_keys.make_cluster(keys, name="test", days=3650, home=keys / "none", force=False, now=now)
        self.nats = NatsSite([])
        self.machines = [
            self._machine(name, host, keys, environ, expected) for name, host in zip("abc", made, strict=True)
        ]

    def _machine(
        self, name: str, host: Host, keys: Path, environ: Mapping[str, str], expected: Sequence[str]
    ) -> Watchout:
        machine = Watchout(host=host, expected=expected)
        machine.port = GATEWAY_PORT
        found = variables(deployed(f"host-{name}.env", self.hosts, machine.home))
        found |= {
            "DATABASE_URL": f"sqlite:{self._store}",
            "WATCHOUT_PORT": str(GATEWAY_PORT),
            "ALERT_COOLDOWN_S": "0",
            **environ,
        }
        machine.environ.update(found)
        made = cluster_keys.make_host(
            keys, f"host-{name}", [host.address], days=397, force=False, now=datetime.now(UTC)
        )
        shutil.copytree(made.place, machine.home)
        machine.home.chmod(0o700)
        text = deployed("nats.conf", self.hosts, machine.home)
        used = sorted({each for each in re.findall(r"\$([A-Z_]+)\b", text) if each not in ("JS", "KV")})
        prefix = (*host.within, "env", *(f"{each}={found[each]}" for each in used))
        server = DeployedServer(name, host.address, text, prefix, port=4222, route_port=6222, monitor_port=8222)
        self.nats.servers.append(server)
        return machine

    def __getitem__(self, index: int) -> Watchout:
        return self.machines[index]

    def __iter__(self) -> Iterator[Watchout]:
        return iter(self.machines)

    def token(self, user: str | None = None) -> str:
        """A session token for the user of this name."""
        return mint_token(self._store, user, 86_400.0)

    def server(self, index: int) -> NatsServer:
        """The NATS server of a host."""
        return self.nats.servers[index]

    def start_nats(self) -> None:
        """Start the NATS servers that do not run, and wait until they are one cluster with a leader."""
        for server in self.nats.servers:
            if server._shell is None:
                server.start()
        for server in self.nats.servers:
            self.wait_for_nats(server)

    def wait_for_nats(self, server: NatsServer) -> None:
        """Wait until a server serves, with JetStream."""

        def serves() -> bool:
            with contextlib.suppress(OSError):
                return server.monitor("/healthz")[0] == 200
            return False

        poll(serves, COMES_S, f"the NATS server {server.name} does not serve:\n{server.log[-1000:]}")

    def start(self, *names: str) -> None:
        """Start a program on each host that is named with it: ``"gateway:0"``; returns when all of them serve."""
        for name in names:
            program, _, where = name.partition(":")
            self.machines[int(where)].start(program)
        poll(self.ready, COMES_S, "the site is not ready")

    def ready(self) -> bool:
        """Whether every process that runs has said that it is ready and has joined its routers."""
        for machine in self.machines:
            for process in machine.processes:
                if process.name in SERVERS and process.running:
                    said = process.output
                    if f"{process.name} ready" not in said or JOINED.get(process.name, "") not in said:
                        return False
                elif process.name in ("gateway", "router") and process.wait(0) not in (-9, 0):
                    raise AssertionError(f"{process.name} ended:\n{process.output}")
        return all(m.get("/health")[0] == 200 for m in self.machines if m.named("gateway"))

    def lose(self, index: int) -> None:
        """Lose a host with all that runs there, without a word to anybody."""
        self.hosts.power_off(self.hosts[index])
        self.server(index).stop()

    def find(self, index: int, *names: str) -> None:
        """Start a lost host again: its NATS server, and these programs."""
        self.hosts.plug(self.hosts[index])
        self.server(index).start()
        self.wait_for_nats(self.server(index))
        self.start(*(f"{name}:{index}" for name in names))

    def report(self) -> str:
        """The last lines of everything, for the message of a failure."""
        texts = []
        for number, machine in enumerate(self.machines):
            texts += [f"── host {number} {each.name} {each.pid}\n{each.output[-3000:]}" for each in machine.processes]
        return "\n".join(texts)

    def close(self) -> None:
        """End everything; the processes first, then the NATS servers."""
        faults = []
        for machine in self.machines:
            try:
                machine.close()
            except AssertionError as exc:
                faults.append(str(exc))
        self.nats.remove()
        shutil.rmtree(self._directory, ignore_errors=True)
        assert not faults, "\n".join(faults)


@contextlib.contextmanager
def site_of_hosts(*, environ: Mapping[str, str] | None = None, expected: Sequence[str] = ()) -> Iterator[Site]:
    """Hosts with a NATS server each; no process of watchout runs yet."""
    with hosts(3) as made:
        site = Site(made, environ=environ or {}, expected=expected)
        try:
            site.start_nats()
            yield site
        finally:
            site.close()


class Scene:
    """A camera on one host that sends while the block lasts, and viewers on others; what they felt is measured."""

    def __init__(self, site: Site, stream: str, camera: Camera, viewers: list[Viewer]) -> None:
        self.site, self.stream, self.camera, self.viewers = site, stream, camera, viewers

    def mark(self) -> list[int]:
        """How many messages each viewer has heard: what follows is what a fault did."""
        return [len(viewer.heard) for viewer in self.viewers]

    async def flows(self, count: int = 5) -> None:
        """Each viewer gets so many more frames."""
        for viewer in self.viewers:
            have = len(viewer.frames)
            await eventually(
                lambda viewer=viewer, have=have: len(viewer.frames) >= have + count, COMES_S,
                f"no frames of {self.stream}",
            )  # fmt: skip

    def longest_gap_s(self, viewer: Viewer, since: int = 0) -> float:
        """The longest time between two frames after so many messages."""
        found = list(zip(viewer.heard, viewer.heard_at, strict=True))[since:]
        at = [when for message, when in found if message["type"] == "video-frame"]
        return max((later - earlier for earlier, later in itertools.pairwise(at)), default=0.0)

    def assert_no_gap(self, what: str, since: Sequence[int]) -> None:
        """Since so many messages, which `mark` gave, no viewer waited longer for a frame than is promised."""
        gap = max(self.longest_gap_s(viewer, mark) for viewer, mark in zip(self.viewers, since, strict=True))
        told(what, gap)
        assert gap < GAP_S

    def assert_frame_ids_rise(self) -> None:
        """`frameId` never falls, and no frame comes twice."""
        for viewer in self.viewers:
            ids = [m["frameId"] for m in viewer.frames if m["streamId"] == self.stream]
            assert ids == sorted(set(ids)), ids


@contextlib.asynccontextmanager
async def scene(
    site: Site, clients: Clients, stream: str, *, camera_at: int = 0, viewers_at: Sequence[int] = (1,), fps: float = 10
) -> AsyncIterator[Scene]:
    """A camera and viewers, whose frames flow."""
    token = site.token()
    camera = await clients.camera(site[camera_at].url, token)
    await camera.register(stream, consumes=["alert"])
    viewers = []
    for index in viewers_at:
        viewer = await clients.viewer(site[index].url, token)
        await viewer.subscribe(stream, lastFrame=False)
        viewers.append(viewer)
    async with camera.streaming(fps):
        made = Scene(site, stream, camera, viewers)
        await made.flows()
        yield made
        made.assert_frame_ids_rise()


async def claim(camera: Camera, stream: str, within_s: float) -> None:
    """Register a stream, again after each `ROUTING_ERROR`, as clients do."""

    async def registered() -> bool:
        await camera.send("register", clientType="mobile", streamId=stream, produces=["video-frame"])
        answer = await camera.next(COMES_S)
        assert answer["type"] == "success" or answer["code"] == "ROUTING_ERROR", answer
        return bool(answer["type"] == "success")

    await eventually(registered, within_s, f"the claim of {stream} is granted")


@dataclass
class Alerts:
    """Alerts that are posted one after another, at any host that takes them; `accepted` are their ids."""

    site: Site
    stream: str
    hosts: Sequence[int]
    token: str
    accepted: list[str] = field(default_factory=list)
    refused: int = 0
    _number: int = 0

    async def post(self) -> bool:
        """Post the next alert until a host accepts it: the same id again after an error, as a client does."""
        self._number += 1
        alert_id = f"post-{self._number}"
        body = {"streamId": self.stream, "id": alert_id, "severity": "low", "message": alert_id}
        until = time.monotonic() + COMES_S
        for host in self._in_turn():
            answer: Answer | None = None
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(3.0):
                    answer = await http(f"{self.site[host].url}/alerts", method="POST", token=self.token, body=body)
            if answer is not None and answer.status == 202:
                self.accepted.append(alert_id)
                return True
            self.refused += 1
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.05)
        return False

    def _in_turn(self) -> Iterator[int]:
        while True:
            yield from self.hosts

    @contextlib.asynccontextmanager
    async def posting(self, per_s: float) -> AsyncIterator[None]:
        """Post while the block lasts."""
        task = asyncio.get_running_loop().create_task(self._run(per_s), name="alerts")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self, per_s: float) -> None:
        while True:
            await self.post()
            await asyncio.sleep(1 / per_s)

    async def all_came(self, *receivers: Viewer | Camera) -> None:
        """Every accepted alert came to each of these once, and in order."""
        for receiver in receivers:

            def ids(receiver: Viewer | Camera = receiver) -> list[str]:
                alerts = [m for m in receiver.heard if m["type"] == "alert" and m["streamId"] == self.stream]
                return [alert["id"] for alert in alerts if alert["id"].startswith("post-")]

            def missing(ids: Any = ids) -> set[str]:
                return set(self.accepted) - set(ids())

            await eventually(lambda missing=missing: not missing(), COMES_S, "an accepted alert did not come")
            numbers = [int(each.removeprefix("post-")) for each in ids()]
            assert numbers == sorted(set(numbers)), "each once, and in order"
