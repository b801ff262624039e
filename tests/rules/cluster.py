"""A host of a cluster with all that the dashboard shows: NATS that is away, a slot that nobody reaches, a mesh link."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.kit.clients import Camera
from tests.kit.mesh_hosts import authority
from tests.kit.ml_stub import MlStub
from tests.kit.nats_servers import NatsSite
from tests.kit.ports import free_port
from tests.kit.processes import Watchout
from tests.rules.alerts import SECRET, Hook
from tests.rules.breakage import Shows, breaks
from tests.rules.stage import COMES_S, Kit, Stage, eventually

#: Of the users of NATS: routers have one of their own, of which a permission can be taken away.
PASSWORD: Final = secrets.token_hex(8)
SLOTS: Final = 2


@dataclass
class Cluster(Stage):
    """One host with two gateways, and the files of another one."""

    nats: NatsSite | None = None
    service: MlStub = field(default_factory=MlStub)
    camera_here: Camera | None = None
    other: Watchout | None = None
    homes: dict[str, Path] = field(default_factory=dict)

    def users(self, denied: str = "") -> str:
        """The configuration of NATS: its users, and what the routers may not subscribe to."""
        deny = f', permissions {{ subscribe: {{ deny: ["{denied}"] }} }}' if denied else ""
        return (
            'jetstream { store_dir: "$FOLDER/js", max_file_store: 256MB, max_memory_store: 64MB }\n'
            f'authorization {{ users: [ {{ user: routers, password: "{PASSWORD}"{deny} }}, '
            f'{{ user: others, password: "{PASSWORD}" }} ] }}'
        )

    async def others_gateway(self, home: str) -> None:
        """Start the other host's gateway, with the certificate of that home."""
        assert self.other is not None
        target = self.other.home / "mesh"
        await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)
        await asyncio.to_thread(shutil.copytree, self.homes[home] / "mesh", target)
        gateway = await asyncio.to_thread(self.other.start, "gateway", {"WATCHOUT_PROCESS_NAME": "other"})
        await eventually(lambda: "router joined" in gateway.output, COMES_S)


@contextlib.asynccontextmanager
async def scene(kit: Kit) -> AsyncIterator[Cluster]:
    """The cluster, with frames and alerts."""
    async with contextlib.AsyncExitStack() as stack:
        ca, foreign = stack.enter_context(authority()), stack.enter_context(authority())
        hook = await stack.enter_async_context(Hook().running())
        service = MlStub()
        service.mode = "answer"
        await service.start()
        stack.push_async_callback(service.stop)
        here = Cluster(None, kit.clients, stack, service=service)
        here.nats = nats = await asyncio.to_thread(kit.start_nats, 1, here.users(), jetstream=False)
        environ = {
            "WATCHOUT_BUS": nats.url_of("others", PASSWORD), "CLUSTER_NAME": f"t{secrets.token_hex(4)}",
            "CLUSTER_SLOTS": str(SLOTS), "STREAM_ACCESS": "authenticated", "MESH_LISTEN": "tls://127.0.0.1:0",
            "ML_SERVICE_URL": service.url, "ML_FPS": "5", "ALERT_COOLDOWN_S": "1",
            "ALERT_WEBHOOK_URL": hook.url, "ALERT_WEBHOOK_SECRETS": SECRET, "ALERT_WEBHOOK_ALLOW_PRIVATE": "true",
        }  # fmt: skip
        here.system = kit.watchout(start=False, environ=environ, expected=("Connect call failed", "failed"))
        here.other = kit.watchout(start=False, environ=environ, expected=("Connect call failed", "failed"))
        here.homes = {"good": await asyncio.to_thread(copied, ca.home("b", "127.0.0.1"), kit.folder / "good")}
        here.homes["short"] = await asyncio.to_thread(copied, ca.home("b", "127.0.0.1", days=3), kit.folder / "short")
        here.homes["foreign"] = foreign.home("b", "127.0.0.1")
        for system, home in ((here.system, ca.home("a", "127.0.0.1")), (here.other, here.homes["good"])):
            await asyncio.to_thread(shutil.copytree, home, system.home)
            system.home.chmod(0o700)
        here.ports = [here.system.port, free_port()]
        await start_router(here)
        for number, port in enumerate(here.ports, 1):
            await here.start("gateway", f"gateway.{number}", WATCHOUT_PORT=str(port))
        await here.start("mlbridge", "mlbridge")
        await here.ready()
        here.camera_here = await here.camera(10)
        viewer = await here.viewer(here.camera_here.stream, port=here.ports[1])
        await eventually(lambda: viewer.frames and service.looks, COMES_S)
        yield here


def copied(home: Path, to: Path) -> Path:
    """A copy of a home: a later one of the same host is written to the same place."""
    return Path(shutil.copytree(home, to))


async def start_router(here: Cluster) -> None:
    assert here.nats is not None
    await here.start("router", "router", WATCHOUT_BUS=here.nats.url_of("routers", PASSWORD))


@breaks(
    "WatchoutMlServiceAway",
    how="the ML service of the cluster is stopped",
    shows=[Shows(("doctor",), r"ML_SERVICE_URL at .* cannot be reached")],
)
async def ml_away(here: Cluster) -> AsyncIterator[None]:
    await here.service.stop()
    yield
    await here.service.start()


@breaks("WatchoutNoCameras", "WatchoutProcessAway", how="the only camera leaves, and the only bridge is killed")
async def left_and_killed(here: Cluster) -> AsyncIterator[None]:
    assert here.camera_here is not None
    await here.camera_here.leave()
    await asyncio.to_thread(here.named["mlbridge"].kill)
    yield
    await here.start("mlbridge", "mlbridge")
    here.camera_here = await here.camera(10)


@breaks(
    "WatchoutNatsAway", "WatchoutRouterAway", how="the NATS server is killed",
    shows=[Shows(("cluster",), r"The NATS server \S+ cannot be used"), Shows(("doctor",), r"wrong +bus")],
)  # fmt: skip
async def nats_away(here: Cluster) -> AsyncIterator[None]:
    assert here.nats is not None
    await asyncio.to_thread(here.nats.servers[0].kill)
    yield
    await asyncio.to_thread(here.nats.start)


@breaks(
    "WatchoutSlotWithoutRouter",
    how="the NATS user of the routers may no longer subscribe to the subject of one slot",
    shows=[Shows(("cluster",), r"Slot 1 has no router|Slot 1: its router, .*does\s+not\s+reply")],
)  # fmt: skip
async def slot_not_reached(here: Cluster) -> AsyncIterator[None]:
    assert here.nats is not None
    name = here.system.environ["CLUSTER_NAME"]
    here.nats.servers[0].reload(here.users(denied=f"{name}.router.1.*"))
    yield
    here.nats.servers[0].reload(here.users())
    await asyncio.to_thread(here.named["router"].terminate)
    await start_router(here)


@breaks(
    "WatchoutCertificateExpires", how="the certificate of a host for other hosts is good for three days",
    where={"process": "other@" + socket.gethostname()},
)  # fmt: skip
async def certificate_of_a_host_ends(here: Cluster) -> AsyncIterator[None]:
    assert here.other is not None
    await here.others_gateway("short")
    yield
    for file in ("host.key", "host.crt"):
        await asyncio.to_thread(shutil.copy, here.homes["good"] / "mesh" / file, here.other.home / "mesh" / file)


@breaks(
    "WatchoutMeshLinkDown", how="a host whose certificate is of another authority wants frames",
    shows=[Shows(("cluster",), r"missing: (?s:.)*certificate")],
)  # fmt: skip
async def foreign_certificate(here: Cluster) -> AsyncIterator[None]:
    assert here.other is not None
    assert here.camera_here is not None
    for gateway in here.other.named("gateway"):
        await asyncio.to_thread(gateway.terminate)
    await here.others_gateway("foreign")
    stream = here.camera_here.stream
    here.token, token = here.other.token(), here.token
    viewer = await here.viewer(stream, port=here.other.port)
    yield
    await viewer.leave()
    await asyncio.to_thread(here.other.one("gateway").terminate)
    await here.others_gateway("good")
    viewer = await here.viewer(stream, port=here.other.port)
    await viewer.frame()
    here.token = token


#: What is broken in every run of the tests; the rest takes longer.
SHORT: Final[tuple[tuple[Any, ...], ...]] = ((ml_away,), (left_and_killed,), (nats_away,))
STEPS: Final = (*SHORT, (slot_not_reached,), (certificate_of_a_host_ends,), (foreign_certificate,))
