"""Slot routers over real NATS servers, in the event loop of the test: with a member, and an ear for all their words.

Each router has its own connection, as the order of its servers is another one; so do the member and the ear.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nats.aio.client import Client
from nats.js import JetStreamContext

from tests.kit.clients import eventually
from tests.kit.nats_servers import NatsServer, NatsSite
from watchout.common.bus.messages import Claim, GrantedReply, Hello, Message, decode_from_router
from watchout.common.bus.nats.connection import NatsConnection, connection_of
from watchout.common.bus.router_links import RouterLinks
from watchout.common.bus.slot_entries import SlotEntry, decode_entry
from watchout.common.bus.slots import slot_of
from watchout.common.bus.transport_choice import gateway_carrier
from watchout.common.errors import BusError, RouterUnavailable
from watchout.common.home import prepare_home
from watchout.common.settings import Settings, load
from watchout.router.slots.cluster import ClusterRouter
from watchout.router.slots.keeper import SlotKeeper

COMES_S: Final = 60.0
#: The slots are shared within this: a router that did not take a slot that it was given gets none for a minute.
SHARED_S: Final = 180.0


@dataclass(frozen=True)
class Word:
    """What a router said to members: when, of which slot and epoch, and the kind of message."""

    at: float
    slot: int
    epoch: int
    kind: str


@dataclass
class SlotHouse:
    """One site: its NATS servers, its settings, and what runs in this loop."""

    nats: NatsSite
    home: Path
    slots: int = 2
    name: str = field(default_factory=lambda: f"t{secrets.token_hex(4)}")
    routers: list[ClusterRouter] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    #: Epochs of the member, slot by slot, in the order of its joining.
    joined: list[list[int]] = field(default_factory=list)
    _orders: Any = None
    _links: RouterLinks | None = None
    _ear: NatsConnection | None = None

    def __post_init__(self) -> None:
        prepare_home(self.home)
        self.joined = [[] for _ in range(self.slots)]
        urls = [server.url for server in self.nats.servers]
        if len(urls) == 1:  # names of one address make more orders
            urls.append(urls[0].replace("127.0.0.1", "localhost"))
        self._orders = itertools.chain(itertools.permutations(urls), ((url,) for url in urls))

    def environ(self, servers: Sequence[str] = (), **more: str) -> dict[str, str]:
        return {
            "WATCHOUT_BUS": ",".join(servers or next(self._orders)), "CLUSTER_NAME": self.name,
            "CLUSTER_SLOTS": str(self.slots), "WATCHOUT_HOME": str(self.home), **more,
        }  # fmt: skip

    def settings(self, **more: str) -> Settings:
        return load(self.environ(**more))

    # ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def add_router(self, **more: str) -> ClusterRouter:
        made = ClusterRouter(self.settings(PROCESS_NAME=f"router-{len(self.routers) + 1}", **more))
        self.routers.append(made)
        await made.start()
        return made

    async def add_member(self) -> RouterLinks:
        """Open the member and the ear."""
        settings = self.settings()
        self._ear = connection_of(self.settings(), "router")
        for subject in ("member.*.*", "members.*"):
            self._ear.subscribe(f"{self.name}.{subject}", self._hear)
        links = self._links = RouterLinks(
            Hello(kind="gateway", name="member", pid=1), carrier=gateway_carrier(settings), request_timeout_s=1.0,
            snapshot=_nothing, metrics=dict, on_message=lambda _slot, _body: None, on_joined=self._on_joined,
        )  # fmt: skip
        links.open()
        return links

    @property
    def member(self) -> RouterLinks:
        assert self._links is not None
        return self._links

    async def close(self) -> None:
        if self._links is not None:
            await self._links.close()
        for router in self.routers:
            await router.stop()
        if self._ear is not None:
            self._ear.close()
            await self._ear.ended()

    # ── what is known ────────────────────────────────────────────────────────────────────────────────────────────

    def keeper(self, router: ClusterRouter) -> SlotKeeper:
        assert router._keeper is not None
        return router._keeper

    def holders(self) -> dict[int, list[ClusterRouter]]:
        """The routers that have each slot."""
        return {
            slot: [each for each in self.routers if slot in self.keeper(each).held] for slot in range(self.slots)
        }  # fmt: skip

    def lost(self) -> int:
        """How many leases were lost so far."""
        return sum(self.keeper(each).counts.lost for each in self.routers)

    def epochs(self) -> list[int]:
        """The epoch that the member obeys, by slot."""
        return [link.epoch for link in self.member.all()]

    async def whole(self, within_s: float = COMES_S) -> None:
        """Wait until the member is joined with every slot."""
        await eventually(lambda: self.member.missing == (), within_s, "a slot is missing")

    def say(self, slot: int, data: bytes) -> None:
        """Send bytes to all members of a slot, as a router does."""
        assert self._ear is not None
        self._ear.publish(f"{self.name}.members.{slot}", data)

    async def claims(self, within_s: float = COMES_S) -> float:
        """Claim a new stream of each slot, again and again until it is granted; the seconds until the last one was."""
        began = time.monotonic()
        await asyncio.gather(*(self.claim(slot, within_s) for slot in range(self.slots)))
        return time.monotonic() - began

    async def claim(self, slot: int, within_s: float = COMES_S) -> float:
        """Claim a new stream of a slot until it is granted; the seconds that it took."""
        began = time.monotonic()
        stream = stream_of(slot, self.slots)
        while True:
            try:
                reply = await self.member.of(stream).request(
                    lambda number: Claim(request=number, stream=stream, user="somebody"), 0.5
                )
            except RouterUnavailable:
                reply = None
            if isinstance(reply, GrantedReply):
                return time.monotonic() - began
            assert time.monotonic() - began < within_s, f"no claim of slot {slot} within {within_s} s: {reply}"
            await asyncio.sleep(0.05)

    def assert_epochs_never_fell(self) -> None:
        for slot, epochs in enumerate(self.joined):
            assert epochs == sorted(epochs), f"slot {slot}: {epochs}"

    # ── the store ────────────────────────────────────────────────────────────────────────────────────────────────

    def jetstream(self) -> JetStreamContext:
        assert self._ear is not None
        client: Client | None = self._ear.client
        assert client is not None
        return client.jetstream(timeout=5.0)

    async def entry(self, slot: int) -> SlotEntry | None:
        try:
            found = await self.jetstream().get_last_msg(f"KV_{self.name}-slots", f"$KV.{self.name}-slots.slot.{slot}")
        except Exception:
            return None
        return decode_entry(found.data)

    async def leader(self, bucket: str = "slots") -> NatsServer:
        """The server that leads a bucket."""
        info = await self.jetstream().stream_info(f"KV_{self.name}-{bucket}")
        assert info.cluster is not None
        (found,) = [server for server in self.nats.servers if server.name == info.cluster.leader]
        return found

    async def move_leader(self, bucket: str) -> None:
        """Have another server lead a bucket."""
        client = self._ear.client if self._ear else None
        assert client is not None
        said = await client.request(f"$JS.API.STREAM.LEADER.STEPDOWN.KV_{self.name}-{bucket}", b"", timeout=5.0)
        assert b'"success":true' in said.data, said.data

    # ── what is called ───────────────────────────────────────────────────────────────────────────────────────────

    def _on_joined(self, slot: int, _new: bool) -> None:
        self.joined[slot].append(self.member.at(slot).epoch)

    def _hear(self, message: Any) -> None:
        if not message.data or message.data[0] == 0xC1:
            return
        try:
            envelope = decode_from_router(message.data)
        except BusError:  # a test says what no router says
            return
        slot = int(message.subject.rpartition(".")[2])
        self.words.append(Word(time.monotonic(), slot, envelope.epoch, type(envelope.body).__name__))


def stream_of(slot: int, slots: int) -> str:
    """A new stream id of a slot."""
    while slot_of(name := f"s-{secrets.token_hex(6)}", slots) != slot:
        pass
    return name


async def _nothing(_slot: int) -> AsyncIterator[Message]:
    for message in ():
        yield message
