"""A member's bonds with the routers of all slots, as one face: each slot has a `BusClient`, and all share the mesh."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Generic

import msgspec

from watchout.common import log, supervisor
from watchout.common.bus.client import MAX_PENDING, METRICS_EVERY_S, BusClient
from watchout.common.bus.link_rates import LinkRates
from watchout.common.bus.mesh import FrameMesh, MemberCarrier, OnFrame, SendFrameTo
from watchout.common.bus.messages import LEVEL, FromRouter, Hello, Message, Query
from watchout.common.bus.peer_queue import Parts
from watchout.common.bus.reply_records import R
from watchout.common.bus.slots import slot_of
from watchout.common.errors import BusError, RouterUnavailable
from watchout.common.metric_names import MetricName

#: How long a query to all slots waits for one that has no router at that moment while others have, in seconds.
ABSENT_S: Final = 0.3
#: Seconds between two heartbeats with metrics to each router but the first one that is there.
METRICS_ELSEWHERE_EVERY_S: Final = 5.0
#: Seconds between two reports of the links of the mesh, and the level of a router that understands them.
LINKS_EVERY_S: Final = 2.0
LINKS_LEVEL: Final = 2

_log = log.get("common.bus.router_links")


def _drop_frame(at: str, parts: Parts, coalescing_delay_s: float) -> None:
    """The `SendFrameTo` where there is no mesh."""


@dataclass(frozen=True, slots=True)
class SlotReplies(Generic[R]):
    """The replies of all slots to one query; returned by `RouterLinks.ask_all`.

    Attributes:
        by_slot: The reply of each slot that answered, in the order of the slots.
        missing: The slots that did not answer.

    """

    by_slot: dict[int, R]
    missing: tuple[int, ...] = ()


class RouterLinks:
    """All memberships of one process: one at the router of each slot, and its one part of the frame mesh.

    Made by a gateway's `RouterClient`, by the bridge and by `watchout-ctl`. The constructor opens nothing. What is said
    of one stream goes to the router of its slot, `of(stream)`. All callbacks run in the event loop of `open`.

    Args:
        hello: What the member says of itself; `attempt`, `frames_at`, `process`, `level` and `slots` are filled in.
        carrier: What carries the messages.
        request_timeout_s: Deadline of a request in seconds, where the request has none of its own.
        snapshot: Yields what the router of this slot has to know, after each of its `Welcome`.
        metrics: Returns the metrics of this process for a heartbeat.
        on_message: Called with the slot and each message of its router that is no reply.
        on_frame: Called with each frame; None for a member without frames.
        on_joined: Called with the slot when its router knows this member, before the snapshot is sent, and with whether
            its epoch is new.
        on_lost: Called with the slot when its membership is lost.

    """

    def __init__(
        self,
        hello: Hello,
        *,
        carrier: MemberCarrier,
        request_timeout_s: float,
        snapshot: Callable[[int], AsyncIterator[Message]],
        metrics: Callable[[], dict[str, float]],
        on_message: Callable[[int, FromRouter], None],
        on_frame: OnFrame | None = None,
        on_joined: Callable[[int, bool], None] | None = None,
        on_lost: Callable[[int], None] | None = None,
    ) -> None:
        self._hello = hello
        self._carrier = carrier
        self._request_timeout_s = request_timeout_s
        self._snapshot = snapshot
        self._metrics = metrics
        self._on_message = on_message
        self._on_frame = on_frame
        self._on_joined = on_joined
        self._on_lost = on_lost
        self._process = secrets.token_hex(8) if carrier.slots > 1 else None
        self._links: list[BusClient] = []
        self._mesh: FrameMesh | None = None
        #: Sends a frame to another member, or queues it; needs no router. Without a mesh the frame is dropped.
        self.send_frame_to: SendFrameTo = _drop_frame
        self._rates = LinkRates()
        self._reporting: supervisor.Periodic | None = None

    def open(self) -> None:
        """Start to connect to the routers of all slots; returns at once."""
        carrier, hello = self._carrier, msgspec.structs.replace(self._hello, level=LEVEL)
        if carrier.open_mesh is not None and self._on_frame is not None:
            self._mesh = carrier.open_mesh(on_frame=self._on_frame)
            self.send_frame_to = self._mesh.send_frame
            hello = msgspec.structs.replace(hello, frames_at=self._mesh.address)
        if carrier.fenced:
            hello = msgspec.structs.replace(hello, slots=carrier.slots)
        if self._process is not None:
            hello = msgspec.structs.replace(hello, process=self._process)
        for slot in range(carrier.slots):
            self._links.append(self._open_slot(slot, hello))
        if self._mesh is not None:
            self._reporting = supervisor.current().every(LINKS_EVERY_S, self.report_links, "links of the frame mesh")

    def _open_slot(self, slot: int, hello: Hello) -> BusClient:
        carrier = self._carrier
        return BusClient(
            hello,
            open_transport=carrier.opener(slot),
            request_timeout_s=self._request_timeout_s,
            snapshot=partial(self._snapshot, slot),
            metrics=self._metrics,
            on_message=partial(self._on_message, slot),
            on_frame=self._on_frame,
            mesh=self._mesh,
            on_joined=None if self._on_joined is None else partial(self._on_joined, slot),
            on_lost=None if self._on_lost is None else partial(self._on_lost, slot),
            slot=slot if carrier.slots > 1 else None,
            fenced=carrier.fenced,
            max_pending=MAX_PENDING // carrier.slots,
            metrics_every_s=partial(self._metrics_every_s, slot),
        )

    def _metrics_every_s(self, slot: int) -> float:
        """Return the seconds between two heartbeats with metrics: who asks one process asks all slots."""
        is_first = next((number for number, link in enumerate(self._links) if link.live), slot) == slot
        return METRICS_EVERY_S if is_first else METRICS_ELSEWHERE_EVERY_S

    @property
    def slots(self) -> int:
        """How many slots there are."""
        return self._carrier.slots

    @property
    def fenced(self) -> bool:
        """Whether a slot can have two live routers for a moment."""
        return self._carrier.fenced

    def of(self, stream: str) -> BusClient:
        """Return the bond with the router of a stream.

        Args:
            stream: Id of the stream.

        """
        return self._links[slot_of(stream, len(self._links))]

    def streams_of(self, slot: int) -> Callable[[str], bool] | None:
        """Return what says of a stream whether it is of this slot; None where there is only one slot.

        Args:
            slot: The slot, from 0.

        """
        slots = self._carrier.slots
        return None if slots == 1 else lambda stream: slot_of(stream, slots) == slot

    def at(self, slot: int) -> BusClient:
        """Return the bond with the router of a slot.

        Args:
            slot: The slot, from 0.

        """
        return self._links[slot]

    def all(self) -> Sequence[BusClient]:
        """Return the bonds with all routers, by slot."""
        return self._links

    def where(self, slot: int) -> dict[str, int]:
        """Return what a log line says of a slot: nothing where there is only one.

        Args:
            slot: The slot, from 0.

        """
        return {"slot": slot} if self._carrier.slots > 1 else {}

    @property
    def own_id(self) -> str:
        """The id of this process in the routers' replies, in hexadecimal."""
        return self._process or self._links[0].member_id.hex()

    @property
    def live(self) -> bool:
        """Whether the router of any slot knows this member now."""
        return any(link.live for link in self._links)

    @property
    def missing(self) -> tuple[int, ...]:
        """The slots whose router does not know this member now."""
        return tuple(slot for slot, link in enumerate(self._links) if not link.live)

    def explain_absence(self) -> str:
        """Return a sentence for the log: why the router of a missing slot may be out of reach."""
        return next((link for link in self._links if not link.live), self._links[0]).explain_absence()

    def explain_slots(self) -> str:
        """Return a sentence when routers do not let this process join, as their number of slots differs; else ""."""
        return next((why for link in self._links if (why := link.explain_slots())), "")

    async def wait_live(self, timeout_s: float) -> bool:
        """Wait until the routers of all slots know this member and have its snapshot.

        Args:
            timeout_s: Longest wait in seconds.

        Returns:
            Whether at least one does.

        """
        return any(await asyncio.gather(*(link.wait_live(timeout_s) for link in self._links)))

    async def ask_all(
        self,
        make: Callable[[BusClient, int], Query],
        kind: type[R],
        timeout_s: float | None = None,
        *,
        slots: Sequence[int] | None = None,
    ) -> SlotReplies[R]:
        """Send a query to the routers of all slots at once. One that is away is waited for only if all others are.

        Args:
            make: Makes the `Query` for a bond from the request's number.
            kind: The record that this kind of query is replied with; see `common.bus.reply_records`.
            timeout_s: Seconds to wait, in place of the default.
            slots: The slots that are asked; None: all.

        Returns:
            The replies, and the slots that are missing among those that were asked.

        Raises:
            RouterUnavailable: No router replied in time, or with one slot, it refused.
            BusError: With one slot: the reply is of another form, as from a router of another version.

        """
        if len(self._links) == 1:
            link = self._links[0]
            return SlotReplies({0: await link.query(partial(make, link), kind, timeout_s)})
        any_live = self.live
        wanted = range(len(self._links)) if slots is None else slots
        asked = await asyncio.gather(
            *(
                self._ask(slot, make, kind, timeout_s if self._links[slot].live or not any_live else ABSENT_S)
                for slot in wanted
            )
        )
        found = list(zip(wanted, asked, strict=True))
        replies = {slot: reply[0] for slot, reply in found if reply is not None}
        if not replies:
            raise RouterUnavailable("no router answered in time")
        return SlotReplies(replies, tuple(slot for slot, reply in found if reply is None))

    async def _ask(
        self, slot: int, make: Callable[[BusClient, int], Query], kind: type[R], timeout_s: float | None
    ) -> tuple[R] | None:
        """Return the reply of one slot; None: it is missing."""
        link = self._links[slot]
        try:
            return (await link.query(partial(make, link), kind, timeout_s),)
        except RouterUnavailable:
            return None
        except BusError as error:
            _log.warning("a router of another release", slot=slot, error=str(error))
            return None

    def report_links(self) -> None:
        """Tell one router, for operators, which links of the mesh there are; nothing where there are none."""
        link = next((each for each in self._links if each.live), None)
        if self._mesh is None or link is None or link.level < LINKS_LEVEL:
            return
        report = self._rates.report(self._mesh.link_states(), asyncio.get_running_loop().time())
        if report is not None:
            link.send(report)

    def send_heartbeats(self) -> None:
        """Send the metrics to all routers now instead of with the next heartbeats."""
        for link in self._links:
            link.send_heartbeat()

    @property
    def bad_messages(self) -> int:
        """Messages and frames of routers and members that were dropped because they did not fit the contract."""
        return sum(link.bad_messages for link in self._links) + (0 if self._mesh is None else self._mesh.malformed)

    @property
    def frames_sent(self) -> int:
        """Frames sent to routers and other members."""
        return sum(link.frames_sent for link in self._links) + (0 if self._mesh is None else self._mesh.frames_sent)

    @property
    def frames_dropped(self) -> int:
        """Frames that were queued for a router or another member, and not sent."""
        direct = 0 if self._mesh is None else self._mesh.frames_dropped
        return sum(link.frames_dropped for link in self._links) + direct

    def mesh_figures(self) -> dict[MetricName, float]:
        """Return what is told of the frame mesh between hosts, by the metrics' names; empty where there is one host."""
        return {} if self._mesh is None else self._mesh.figures()

    async def close(self) -> None:
        """Leave the bus and close all transports. Pending requests raise `RouterUnavailable` at their deadline."""
        if self._reporting is not None:
            self._reporting.cancel()
        for link in self._links:
            await link.close()
        if self._mesh is not None:
            self._mesh.close()
            self._mesh, self.send_frame_to = None, _drop_frame
