"""What every transport of the bus does, over Unix sockets, NATS and in memory; only one module chooses between them."""

from __future__ import annotations

import ast
import asyncio
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.clients import eventually
from tests.kit.memory_transport import MemoryBus
from tests.kit.nats_servers import NatsSite
from watchout.common.bus.frames import BusFrame
from watchout.common.bus.mesh import OpenFrameMesh
from watchout.common.bus.transport import MemberTransport, OpenMemberTransport, OpenRouterTransport, RouterTransport
from watchout.common.bus.transport_choice import gateway_carrier, local_member, router_transport
from watchout.common.settings import load

ROOT = Path(__file__).parents[4]
PACKAGES = ("common", "identity", "gateway", "router", "mlbridge", "ctl")
STRANGER = b"\x01stranger"[:8]


class Ends:
    """A way to open both ends of one bus, and what arrived at them."""

    def __init__(
        self, open_router: OpenRouterTransport, open_member: OpenMemberTransport, open_mesh: OpenFrameMesh | None = None
    ) -> None:
        self._open_router = open_router
        self._open_member = open_member
        #: The member's part of the mesh, where the transport carries no frames.
        self.mesh = None if open_mesh is None else open_mesh(on_frame=lambda data: self.frames_at_member.append(data))
        self._opened: list[RouterTransport | MemberTransport] = []
        self.at_router: list[tuple[bytes, bytes]] = []
        self.frames_at_router: list[bytes] = []
        self.at_member: list[bytes] = []
        self.frames_at_member: list[bytes] = []

    def router(self) -> RouterTransport:
        end = self._open_router(
            on_control=lambda member, message: self.at_router.append((member, message)),
            on_frame=self.frames_at_router.append,
        )
        self._opened.append(end)
        return end

    def member(self) -> MemberTransport:
        end = self._open_member(on_control=self.at_member.append, on_frame=self.frames_at_member.append)
        self._opened.append(end)
        return end

    async def joined(self) -> tuple[RouterTransport, MemberTransport]:
        """A router's and a member's end that reach each other."""
        router, member = self.router(), self.member()

        def arrived() -> bool:
            """A message that nobody receives is lost: NATS does not know at once."""
            return self.at_router or (member.send_control(b"hello") and False)

        await eventually(arrived, what="the router is not connected")
        await eventually(lambda: router.reaches(member.member_id))
        member.on_joined()
        return router, member

    async def close(self) -> None:
        for end in reversed(self._opened):
            end.close()
        if self.mesh is not None:
            self.mesh.close()
        await asyncio.sleep(0.02)


NATS = pytest.param("nats", marks=pytest.mark.real)


@pytest.fixture(params=["unix sockets", "memory", NATS])
async def ends(request: pytest.FixtureRequest) -> Any:
    with tempfile.TemporaryDirectory(prefix="wo-") as home:
        if request.param == "nats":
            site: NatsSite = request.getfixturevalue("nats_bus")
            settings = load({
                "WATCHOUT_HOME": home, "WATCHOUT_BUS": site.url, "CLUSTER_NAME": secrets.token_hex(4)
            })  # fmt: skip
            carrier = gateway_carrier(settings)
            made = Ends(router_transport(settings), carrier.opener(0), carrier.open_mesh)
        elif request.param == "memory":
            bus = MemoryBus()
            made = Ends(bus.open_router, bus.open_member)
        else:
            settings = load({"WATCHOUT_HOME": home})
            made = Ends(router_transport(settings), local_member(Path(home), settings.max_message_bytes))
        yield made
        await made.close()


def frame(number: int) -> bytes:
    return BusFrame("cam", 1, number, 1, 1, 1, b"picture").encode()


async def test_control_messages_arrive_in_order_both_ways(ends: Ends) -> None:
    router, member = await ends.joined()
    assert len(member.member_id) == 8
    assert member.member_id[0] != 0
    assert not router.is_remote(member.member_id)
    sent = [b"%d" % number for number in range(200)]
    for message in sent:
        assert member.send_control(message)
        assert router.send_control(member.member_id, message)
    await eventually(lambda: len(ends.at_member) == 200 and ends.at_router[-1][1] == sent[-1])
    assert ends.at_member == sent
    assert {sender for sender, _ in ends.at_router} == {member.member_id}
    assert [message for _, message in ends.at_router if message != b"hello"] == sent


async def test_frames_arrive_both_ways_and_are_counted(ends: Ends) -> None:
    router, member = await ends.joined()
    mesh, to = ends.mesh, router.frames_at
    if mesh is None:
        assert to is None
        member.send_frame((frame(1)[:20], frame(1)[20:]), 0.0)
        member.send_frame((frame(2),), 0.001)
    else:
        assert to is not None
        mesh.send_frame(to, (frame(1)[:20], frame(1)[20:]), 0.0)
        mesh.send_frame(to, (frame(2),), 0.001)
    router.send_frame(member.member_id, frame(3), None if mesh is None else mesh.address)
    await eventually(lambda: frame(2) in ends.frames_at_router and ends.frames_at_member == [frame(3)])
    sender = mesh or member
    assert sender.frames_sent + sender.frames_dropped == 2
    assert (router.frames_sent, router.frames_dropped) == (1, 0)
    assert (router.malformed, member.malformed) == (0, 0)


async def test_without_a_router_control_is_refused_and_a_new_router_is_found(ends: Ends) -> None:
    member = ends.member()
    assert not member.send_control(b"is anybody there")
    assert member.explain_absence()
    first = ends.router()
    await eventually(lambda: member.send_control(b"one"))
    await eventually(lambda: ends.at_router)
    first.close()
    ends._opened.remove(first)
    ends.router()
    ends.at_router.clear()

    def arrived() -> bool:
        member.send_control(b"two")
        return (member.member_id, b"two") in ends.at_router

    await eventually(arrived, what="the new router gets nothing")


async def test_a_member_that_is_not_there_is_not_reached(ends: Ends) -> None:
    router, member = await ends.joined()
    assert not router.send_control(STRANGER, b"hello")
    assert not router.reaches(STRANGER)
    router.forget(STRANGER)
    assert router.revoked() == []
    assert router.refused is None
    member.close()
    ends._opened.remove(member)
    await eventually(
        lambda: not (router.send_control(member.member_id, b"there?") and router.reaches(member.member_id))
    )
    router.forget(member.member_id)


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")


def test_only_the_choice_of_the_transport_imports_one() -> None:
    """Keys and certificates are files that settings and the tool read too; its doctor and `cluster` look at the bus."""
    importers = set()
    carriers = ("watchout.common.bus.zeromq", "watchout.common.bus.nats")
    for path in modules():
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(("common/bus/zeromq/", "common/bus/nats/")):
            continue
        if not any(carrier in (source := path.read_text()) for carrier in carriers):
            continue  # a module that is not named needs no look at its tree
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(carriers):
                imported = {f"{node.module}.{alias.name}" for alias in node.names}
                if not all(each.startswith("watchout.common.bus.zeromq.curve") for each in imported):
                    importers.add(name)
    doctor = {"ctl/doctor/checks/nats_bus.py", "ctl/doctor/checks/mesh.py", "ctl/mesh_reach.py"}
    cluster = {"ctl/cluster/facts.py", "ctl/cluster/survey.py"}
    assert importers == {"common/bus/transport_choice.py"} | doctor | cluster
