"""The settings select the transport of the bus."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.mesh_hosts import authority
from tests.kit.ports import free_port
from watchout.common.bus.transport_choice import bridge_carrier, frame_mesh, gateway_carrier, router_transport
from watchout.common.bus.zeromq import curve
from watchout.common.bus.zeromq.local import LocalMemberTransport, LocalRouterTransport
from watchout.common.bus.zeromq.tcp_member import TcpMemberTransport
from watchout.common.bus.zeromq.tcp_router import CombinedRouterTransport
from watchout.common.errors import CurveFault, StartError
from watchout.common.settings import Settings, load


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wo-") as directory:
        yield Path(directory)


def settings(home: Path, **environ: str) -> Settings:
    return load({"WATCHOUT_HOME": str(home), **environ})


def open_router(made: Settings) -> LocalRouterTransport | CombinedRouterTransport:
    transport = router_transport(made)(on_control=lambda *_: None, on_frame=lambda _: None)
    assert isinstance(transport, LocalRouterTransport | CombinedRouterTransport)
    return transport


async def test_a_router_listens_on_unix_sockets_and_on_tcp_only_where_the_settings_say_so(home: Path) -> None:
    local = open_router(settings(home))
    assert isinstance(local, LocalRouterTransport)
    assert local.refused is None
    local.close()
    curve.write_pair(curve.server_file(home), curve.new_pair(), "the router")
    both = open_router(settings(home, ROUTER_LISTEN=f"tcp://127.0.0.1:{free_port()}"))
    assert isinstance(both, CombinedRouterTransport)
    assert both.refused == 0
    both.close()


async def test_a_router_without_keys_does_not_listen_on_tcp_and_leaves_nothing_open(home: Path) -> None:
    with pytest.raises(StartError, match=r"needs the router's key pair.*plain TCP is never spoken"):
        open_router(settings(home, ROUTER_LISTEN=f"tcp://127.0.0.1:{free_port()}"))
    assert not (home / "frames.in").exists()
    open_router(settings(home)).close()


async def test_a_gateway_is_on_the_routers_machine_whatever_the_settings_of_bridges_say(home: Path) -> None:
    transport = gateway_carrier(settings(home, **remote(home))).opener(0)(on_control=lambda _: None, on_frame=None)
    assert isinstance(transport, LocalMemberTransport)
    transport.close()


async def test_a_bridge_is_on_the_routers_machine_or_connects_over_tcp(home: Path) -> None:
    local = bridge_carrier(settings(home)).opener(0)(on_control=lambda _: None, on_frame=None)
    assert isinstance(local, LocalMemberTransport)
    local.close()
    far = bridge_carrier(settings(home, **remote(home))).opener(0)(on_control=lambda _: None, on_frame=lambda _: None)
    assert isinstance(far, TcpMemberTransport)
    assert far.member_id[0] >= 128
    far.close()


async def test_a_bridge_whose_key_cannot_be_used_is_a_fault_before_anything_is_opened(home: Path) -> None:
    environ = remote(home)
    Path(environ["BRIDGE_KEY_FILE"]).chmod(0o644)
    with pytest.raises(CurveFault, match="expected 0600"):
        bridge_carrier(settings(home, **environ))


def remote(home: Path) -> dict[str, str]:
    """Settings of a bridge on another machine."""
    path = home / "bridge.key"
    curve.write_pair(path, curve.new_pair(), "a bridge")
    return {
        "ROUTER_ADDRESS": f"tcp://127.0.0.1:{free_port()}",
        "ROUTER_PUBLIC_KEY": curve.new_pair().public,
        "BRIDGE_KEY_FILE": str(path),
    }


async def test_a_process_accepts_frames_of_other_hosts_only_where_the_settings_say_so(home: Path) -> None:
    near = frame_mesh(settings(home))(on_frame=lambda _: None)
    assert (near.address or "").startswith("unix:f-")
    near.close()
    listening = settings(home, WATCHOUT_BUS="nats://127.0.0.1:4222", MESH_LISTEN="tls://127.0.0.1:0")
    with pytest.raises(StartError, match=r"MESH_CERT cannot be read.*mesh/host.crt.*keys host"):
        frame_mesh(listening)(on_frame=lambda _: None)
    with authority() as ca:
        shutil.copytree(ca.home("a", "127.0.0.1"), home, dirs_exist_ok=True)
    far = frame_mesh(listening)(on_frame=lambda _: None)
    assert (far.address or "").startswith("tls:127.0.0.1:")
    far.close()
