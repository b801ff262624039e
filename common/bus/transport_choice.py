"""Selects the transport of the bus by the settings: ZeroMQ on one machine and for bridges of others, or NATS.

Nothing of NATS is imported without `WATCHOUT_BUS`: nats-py need not be installed then.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from watchout.common import log
from watchout.common.bus.key_value import ClusterLink
from watchout.common.bus.mesh import FrameMesh, MemberCarrier, OpenFrameMesh, one_slot
from watchout.common.bus.transport import MemberTransport, OpenMemberTransport, OpenRouterTransport, RouterTransport
from watchout.common.bus.zeromq.curve import AllowList, load_pair, server_file
from watchout.common.bus.zeromq.local import LocalMemberTransport, LocalRouterTransport
from watchout.common.bus.zeromq.tcp import RouterAddress
from watchout.common.bus.zeromq.tcp_member import TcpMemberTransport
from watchout.common.bus.zeromq.tcp_router import CombinedRouterTransport, TcpRouterTransport
from watchout.common.bus.zeromq.unix_mesh import UnixFrameMesh
from watchout.common.errors import StartError
from watchout.common.settings import Settings

if TYPE_CHECKING:
    from watchout.common.bus.nats.member import NatsMemberTransport
    from watchout.common.bus.nats.router import NatsRouterTransport

_log = log.get("common.bus.transport_choice")


def router_transport(
    settings: Settings,
    slot: int = 0,
    open_mesh: OpenFrameMesh | None = None,
    on_denied: Callable[[], None] | None = None,
) -> OpenRouterTransport:
    """The router's end of one slot: NATS when `WATCHOUT_BUS` is set; else Unix sockets in `WATCHOUT_HOME`, and a TCP
    port when `ROUTER_LISTEN` is set.

    Args:
        settings: The router's settings.
        slot: The slot; without NATS there is one.
        open_mesh: Opens the part of the frame mesh, with NATS; None: one for this slot alone.
        on_denied: Called when NATS denies the router its own subject: no member reaches it.

    Returns:
        What opens the transport. It raises `StartError` when a socket cannot be bound, when nats-py is not installed or
        a file of ``BUS_*`` cannot be used, or when `ROUTER_LISTEN` is set and the router has no key pair: plain TCP is
        never spoken.

    """
    if settings.bus:
        return functools.partial(_open_nats_router, settings, slot, open_mesh or frame_mesh(settings), on_denied)
    return functools.partial(_open_router, settings)


def local_member(home: Path, max_message_bytes: int) -> OpenMemberTransport:
    """A member's end on the router's machine.

    Args:
        home: Directory of the router's sockets, `WATCHOUT_HOME`.
        max_message_bytes: Largest frame in bytes, without its header: `MAX_MESSAGE_BYTES`.

    Returns:
        What opens the transport.

    """
    return functools.partial(LocalMemberTransport, home, max_message_bytes=max_message_bytes)


def cluster_link(settings: Settings) -> ClusterLink:
    """What the router processes of a site share: leases, records, beats.

    Args:
        settings: The router's settings; `WATCHOUT_BUS` is set.

    Returns:
        The link, in the running event loop; NATS need not be there yet.

    Raises:
        StartError: nats-py is not installed, or a file of ``BUS_*`` cannot be used.

    """
    from watchout.common.bus.nats.connection import connection_of
    from watchout.common.bus.nats.kv import NatsClusterLink

    return NatsClusterLink(connection_of(settings, "router"))


def frame_mesh(settings: Settings) -> OpenFrameMesh:
    """A process's part of the frame mesh: sockets in `WATCHOUT_HOME`, and a TLS port when `MESH_LISTEN` is set.

    Args:
        settings: The settings of a gateway, a bridge, or a router process of a cluster.

    Returns:
        What opens it. It raises `StartError` when no port can be bound, or the certificates cannot be used.

    """
    home, most, listen = settings.home, settings.max_message_bytes, settings.mesh_listen
    if listen is None:
        return functools.partial(UnixFrameMesh, home, max_message_bytes=most)
    from watchout.common.bus.zeromq.mesh_certificates import MeshFiles  # one machine loads nothing of TLS
    from watchout.common.bus.zeromq.tls_mesh import TlsFrameMesh

    return functools.partial(TlsFrameMesh, home, listen, MeshFiles.of(settings), max_message_bytes=most)


def gateway_carrier(settings: Settings) -> MemberCarrier:
    """What carries the messages of a gateway, or of `watchout-ctl`: NATS when `WATCHOUT_BUS` is set, else Unix sockets.

    Args:
        settings: The settings of the process.

    Returns:
        Its end of the bus and its part of the frame mesh.

    """
    if settings.bus:
        return MemberCarrier(
            functools.partial(_open_nats_member, settings), frame_mesh(settings), slots=settings.slots, fenced=True
        )
    return MemberCarrier(one_slot(local_member(settings.home, settings.max_message_bytes)), frame_mesh(settings))


def bridge_carrier(settings: Settings) -> MemberCarrier:
    """What carries the messages of a bridge: TCP when `ROUTER_ADDRESS` is set, else what carries those of a gateway.

    Args:
        settings: The bridge's settings.

    Returns:
        Its end of the bus and its part of the frame mesh. To a bridge on another machine the router sends the frames.

    Raises:
        CurveFault: `BRIDGE_KEY_FILE` cannot be used; the process ends.

    """
    if settings.router_address is None:
        return gateway_carrier(settings)
    assert settings.router_public_key is not None
    assert settings.bridge_key_file is not None
    router = RouterAddress(settings.router_address, settings.router_public_key, load_pair(settings.bridge_key_file))
    tcp = functools.partial(TcpMemberTransport, router, max_message_bytes=settings.max_message_bytes)
    return MemberCarrier(one_slot(tcp))


def _open_nats_router(
    settings: Settings,
    slot: int,
    open_mesh: OpenFrameMesh,
    on_denied: Callable[[], None] | None,
    *,
    on_control: Callable[[bytes, bytes], None],
    on_frame: Callable[[bytes], None],
) -> NatsRouterTransport:
    from watchout.common.bus.nats.connection import connection_of
    from watchout.common.bus.nats.router import NatsRouterTransport

    return NatsRouterTransport(
        connection_of(settings, "router"),
        slot,
        open_mesh=open_mesh,
        on_control=on_control,
        on_frame=on_frame,
        on_denied=on_denied,
    )


def _open_nats_member(
    settings: Settings,
    slot: int,
    *,
    on_control: Callable[[bytes], None],
    on_frame: Callable[[bytes], None] | None,  # noqa: ARG001 - frames cross the mesh
) -> NatsMemberTransport:
    from watchout.common.bus.nats.connection import connection_of
    from watchout.common.bus.nats.member import NatsMemberTransport

    return NatsMemberTransport(connection_of(settings, "member"), slot, on_control=on_control)


def _open_router(
    settings: Settings, *, on_control: Callable[[bytes, bytes], None], on_frame: Callable[[bytes], None]
) -> RouterTransport:
    max_bytes = settings.max_message_bytes
    local = LocalRouterTransport(settings.home, max_message_bytes=max_bytes, on_control=on_control, on_frame=on_frame)
    if settings.router_listen is None:
        return local
    try:
        remote = _listen(settings, settings.router_listen, on_control=on_control, on_frame=on_frame)
    except BaseException:
        local.close()
        raise
    return CombinedRouterTransport(local, remote)


def _listen(
    settings: Settings, url: str, *, on_control: Callable[[bytes, bytes], None], on_frame: Callable[[bytes], None]
) -> TcpRouterTransport:
    """Accept bridges of other machines. Raises `StartError`."""
    if not server_file(settings.home).exists():
        raise StartError(
            f"ROUTER_LISTEN={url} needs the router's key pair, {server_file(settings.home)}, because plain TCP is "
            "never spoken; `watchout-ctl keys server` makes it"
        )
    pair = load_pair(server_file(settings.home))
    remote = TcpRouterTransport(
        url,
        pair,
        AllowList(settings.home),
        max_message_bytes=settings.max_message_bytes,
        on_control=on_control,
        on_frame=on_frame,
    )
    _log.info("router listens for bridges of other machines", address=url, public_key=pair.public)
    return remote


#: For the type checker: each end of each transport keeps its Protocol.
_ROUTER_ENDS: tuple[type[RouterTransport], ...] = (LocalRouterTransport, CombinedRouterTransport)
_MEMBER_ENDS: tuple[type[MemberTransport], ...] = (LocalMemberTransport, TcpMemberTransport)
_MESHES: tuple[type[FrameMesh], ...] = (UnixFrameMesh,)
