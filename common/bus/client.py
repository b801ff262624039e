"""A member's client of the bus: keeps it joined to the router, and sends requests with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from watchout.common import clock, log, supervisor
from watchout.common.bus.membership import (
    HEARTBEAT_EVERY_S,
    HELLO_EVERY_S,
    Action,
    Deliver,
    Joined,
    Left,
    Membership,
    MembershipState,
    SendHeartbeat,
    SendHello,
)
from watchout.common.bus.mesh import FrameMesh
from watchout.common.bus.messages import (
    BARE_HEARTBEAT_LEVEL,
    AlertNotification,
    Bye,
    FromRouter,
    GrantedReply,
    Hello,
    Interest,
    MemberHeartbeat,
    Message,
    PublicationState,
    Query,
    QueryReply,
    RefusedReply,
    Release,
    Reply,
    RouterHeartbeat,
    SnapshotEnd,
    decode_from_router,
    encode,
)
from watchout.common.bus.messages.fields import TERM_ROOM
from watchout.common.bus.reply_records import R, read_reply
from watchout.common.bus.router_clock import RouterClock
from watchout.common.bus.transport import OpenMemberTransport
from watchout.common.errors import BusError, RouterUnavailable
from watchout.common.process import descriptors, garbage
from watchout.common.toolbox.futures import retrieve_exception

#: Requests that may wait for the router at once; further ones fail at once.
MAX_PENDING: Final = 10_000
#: The log names a router that has been away for the first time, and again after the second, in seconds.
MISSING_AFTER_S: Final = 2.0
MISSING_AGAIN_S: Final = 60.0
#: Seconds between two heartbeats with metrics, to a router of `BARE_HEARTBEAT_LEVEL`.
METRICS_EVERY_S: Final = 1.0
#: Messages of a snapshot that are sent in one turn of the event loop.
SNAPSHOT_TURN: Final = 200
#: A snapshot that failed is sent again after this time, in seconds.
SNAPSHOT_AGAIN_S: Final = 1.0
#: Seconds between two warnings about messages of the router that do not fit the contract.
WARN_EVERY_S: Final = 5.0

_log = log.get("common.bus.client")


class BusClient:
    """A membership at one router: drives `Membership` with a transport and the clock, matches replies to requests.

    Made by `RouterLinks` for each slot. All callbacks run in the event loop in which the client is made. While the
    router is away the client joins again by itself. `request` and `query` raise `RouterUnavailable` when no reply
    arrives before the deadline.

    Args:
        hello: What the member says of itself; `attempt` is filled in.
        open_transport: Opens the transport; it is called once, in the constructor.
        request_timeout_s: Deadline of a request in seconds, where the request has none of its own.
        snapshot: Yields the member's whole state after each `Welcome`. When it raises, the client logs it and joins
            again.
        metrics: Returns the member's metrics for a heartbeat.
        metrics_every_s: Returns the seconds between two heartbeats with metrics.
        on_message: Called with each message of the router that is no reply.
        on_frame: Called with each frame; None for a member without frames.
        mesh: The process's part of the frame mesh, for a router that gets its frames there; the client does not close
            it.
        on_joined: Called when the router knows this member, before the snapshot is sent, with whether its epoch is new.
        on_lost: Called when the membership is lost.
        slot: The router's slot, for the log; None: there is only one router.
        fenced: Whether epochs are fenced (`Membership`).
        max_pending: Requests that may wait for the router at once; further ones fail at once.

    """

    def __init__(
        self,
        hello: Hello,
        *,
        open_transport: OpenMemberTransport,
        request_timeout_s: float,
        snapshot: Callable[[], AsyncIterator[Message]],
        metrics: Callable[[], dict[str, float]],
        on_message: Callable[[FromRouter], None],
        on_frame: Callable[[bytes], None] | None = None,
        mesh: FrameMesh | None = None,
        on_joined: Callable[[bool], None] | None = None,
        on_lost: Callable[[], None] | None = None,
        slot: int | None = None,
        fenced: bool = False,
        max_pending: int = MAX_PENDING,
        metrics_every_s: Callable[[], float] = lambda: METRICS_EVERY_S,
    ) -> None:
        #: The router's clock, by which all times on the bus are.
        self.clock = RouterClock()
        #: The slot of the router, from 0.
        self.slot = slot or 0
        self._name = "the router" if slot is None else f"the router of slot {slot}"
        #: What the log lines say beside their text.
        self._where: dict[str, int] = {} if slot is None else {"slot": slot}
        self._max_pending = max_pending
        self._request_timeout_s = request_timeout_s
        self._snapshot = snapshot
        self._metrics = metrics
        self._metrics_every_s = metrics_every_s
        self._metrics_at = float("-inf")
        self._on_message = on_message
        self._on_joined = on_joined
        self._on_lost = on_lost
        self._membership = Membership(fenced=fenced)
        self._tells_time = fenced
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, asyncio.Future[Reply]] = {}
        self._requests = itertools.count(1)
        self._waiting = 0
        self._ready = asyncio.Event()
        self._snapshot_task: asyncio.Task[None] | None = None
        self._closed = self._over = False
        self._bad_messages = 0
        self._warned_at = float("-inf")
        #: The router's epoch and the number of the last alert received.
        self._last_alert = (0, 0)
        self._live_at = self._loop.time()
        self._absence_logged = False
        self._log_absence_at = self._live_at + MISSING_AFTER_S
        self._transport = open_transport(on_control=self._on_control, on_frame=on_frame)
        self._mesh = mesh
        self._hello = hello
        self._ticks = supervisor.current().every(
            lambda: HEARTBEAT_EVERY_S if self.live else HELLO_EVERY_S, self._tick, f"beats to {self._name}", first_s=0
        )

    @property
    def member_id(self) -> bytes:
        """The id by which the router knows this member."""
        return self._transport.member_id

    @property
    def live(self) -> bool:
        """Whether the router knows this member now."""
        return not self._over and self._membership.state is MembershipState.LIVE

    @property
    def bad_messages(self) -> int:
        """Messages and frames of the router that were dropped because they did not fit the contract."""
        return self._bad_messages + self._transport.malformed

    @property
    def frames_sent(self) -> int:
        """Frames sent to the router over the transport."""
        return self._transport.frames_sent

    @property
    def frames_dropped(self) -> int:
        """Frames that were queued in the transport for the router, and not sent."""
        return self._transport.frames_dropped

    @property
    def epoch(self) -> int:
        """The router's epoch, 0 before this member first joined."""
        return self._membership.epoch

    @property
    def level(self) -> int:
        """Which messages the router understands (`Welcome.level`), 0 before this member first joined."""
        return self._membership.level

    def explain_absence(self) -> str:
        """Return a sentence on why the router may be out of reach, and what the operator can do."""
        return self.explain_slots() or self._transport.explain_absence()

    def explain_slots(self) -> str:
        """Return a sentence when the router does not let this member join, as its number of slots differs; else ""."""
        if not self._membership.other_slots:
            return ""
        return (
            f"CLUSTER_SLOTS is {self._hello.slots} here, and the routers have {self._membership.other_slots}: expected "
            "the same number everywhere"
        )

    async def wait_live(self, timeout_s: float) -> bool:
        """Wait until the router knows this member and has its snapshot.

        Args:
            timeout_s: Longest wait in seconds.

        Returns:
            Whether that is so.

        """
        try:
            async with asyncio.timeout(timeout_s):  # wait_for of Python 3.11 can swallow a cancellation
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    def send(self, body: Message) -> bool:
        """Send a message to the router.

        Args:
            body: The message.

        Returns:
            False when the router is away; a message that states something is part of the next snapshot then.

        """
        if not self.live:
            return False
        if self._send(self._membership.next_seq(), body):
            return True
        self._run(self._membership.send_failed(self._loop.time()))
        return False

    async def request(self, make: Callable[[int], Message], timeout_s: float | None = None) -> Reply:
        """Send a request once the router is there, and wait for its reply.

        When the router goes away meanwhile the request is sent again on its return: every request may be handled twice
        without harm. A grant that arrives in the same turn as the deadline, or as a cancellation, is released again.

        Args:
            make: Returns the request with this number in its field `request`; called again for each attempt.
            timeout_s: Deadline in seconds; None: `request_timeout_s`.

        Returns:
            The reply, which may be a `RefusedReply`.

        Raises:
            RouterUnavailable: No reply arrived in time, or `max_pending` requests wait already. The caller may try
                again.

        """
        if self._waiting >= self._max_pending:
            raise RouterUnavailable(f"{self._max_pending} requests wait for the router")
        number = next(self._requests)
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_s or self._request_timeout_s):
                while True:
                    await self._ready.wait()
                    if self.send(make(number)):
                        self._pending[number] = self._loop.create_future()
                        with contextlib.suppress(RouterUnavailable):
                            return await self._pending[number]
        except (TimeoutError, asyncio.CancelledError) as error:
            pending = self._pending.get(number)
            if pending is not None and pending.done() and not pending.cancelled() and pending.exception() is None:
                self._release_unclaimed(pending.result())
            if isinstance(error, asyncio.CancelledError):
                raise
            raise RouterUnavailable(f"{self._name} did not answer in time") from None
        finally:
            self._waiting -= 1
            last = self._pending.pop(number, None)
            if last is not None:
                retrieve_exception(last)

    def begin(self, make: Callable[[int], Message]) -> asyncio.Future[Reply] | None:
        """Send a request now, for a caller that cannot wait and sends it again itself. It has no deadline.

        Args:
            make: Returns the request with this number in its field `request`.

        Returns:
            Becomes the reply; fails with `RouterUnavailable` when the router goes away. None when it is away: nothing
            was sent.

        """
        number = next(self._requests)
        if not self.send(make(number)):
            return None
        future = self._pending[number] = self._loop.create_future()
        future.add_done_callback(lambda _: self._pending.pop(number, None))
        return future

    async def query(self, make: Callable[[int], Query], kind: type[R], timeout_s: float | None = None) -> R:
        """Send a query to the router and return its typed reply.

        Args:
            make: Makes the `Query` from the request's number.
            kind: The record that this kind of query is replied with, such as `StatsReply`; see
                `common.bus.reply_records`.
            timeout_s: Seconds to wait, in place of the default of this client.

        Returns:
            The reply as a `kind`.

        Raises:
            RouterUnavailable: No reply in time, or the router refused, with its reason as text.
            BusError: The reply is of another form, as from a router of another version.

        """
        reply = await self.request(make, timeout_s)
        match reply:
            case QueryReply(body=body):
                return read_reply(body, kind)
            case RefusedReply(message=reason):
                raise RouterUnavailable(reason)
        raise BusError(f"unexpected reply: {type(reply).__name__}, expected QueryReply")

    def _release_unclaimed(self, reply: Reply) -> None:
        """Give back what a reply granted that no caller waits for any more."""
        if isinstance(reply, GrantedReply):
            self.send(Release(stream=reply.stream, term=reply.term))

    def send_heartbeat(self) -> bool:
        """Send the metrics now instead of with the next heartbeat.

        Returns:
            False when the router is away; nothing was sent then.

        """
        self._metrics_at = self._loop.time()
        return self.send(MemberHeartbeat(metrics=self._metrics(), now=clock.now_ms() if self._tells_time else None))

    def _send_due_heartbeat(self) -> None:
        """Send a heartbeat: with the metrics, if they are due before the next one, or the router needs them in each."""
        due_at = self._metrics_at + self._metrics_every_s() - HEARTBEAT_EVERY_S / 2
        if self.level < BARE_HEARTBEAT_LEVEL or self._loop.time() >= due_at:
            self.send_heartbeat()
        else:
            self.send(MemberHeartbeat(now=clock.now_ms() if self._tells_time else None))

    def send_frame(self, *parts: bytes | memoryview, coalescing_delay_s: float = 0.0) -> bool:
        """Send a frame to the router, or queue it; a queued frame is replaced by a newer one of its queue key.

        Args:
            *parts: The encoded frame in parts, its header within the first (`common.bus.frames`).
            coalescing_delay_s: Seconds for which the frame may be held back to be sent with others.

        Returns:
            False when the router is away and the frame was dropped.

        """
        if not self.live:
            return False
        at = self._membership.frames_at
        if at is not None and self._mesh is not None:
            self._mesh.send_frame(at, parts, coalescing_delay_s)
        else:
            self._transport.send_frame(parts, coalescing_delay_s)
        return True

    async def close(self) -> None:
        """Leave the bus and close the transport. Pending requests raise `RouterUnavailable` at their deadline."""
        if self._closed:
            return
        self._closed = True
        self._ticks.cancel()
        if self._snapshot_task is not None:
            self._snapshot_task.cancel()
        self.send(Bye())
        self._over = True  # from here on callers see the router as away
        self._ready.clear()
        self._fail_pending()
        self._transport.close()

    def _send(self, seq: int, body: Message) -> bool:
        """Encode and queue a message with this number; False when it is lost."""
        membership = self._membership
        epoch = membership.hello_epoch if isinstance(body, Hello) else membership.epoch
        try:
            return self._transport.send_control(encode(epoch, seq, body))
        except BusError as exc:
            _log.error("a message is too large for the bus", error=str(exc), **self._where)
            return False

    def _on_control(self, data: bytes) -> None:
        """Handle a control message of the router."""
        try:
            envelope = decode_from_router(data)
        except BusError as exc:
            self._on_bad_message(str(exc))
            return
        self._run(self._membership.received(envelope, self._loop.time()))
        garbage.worked()

    def _on_bad_message(self, error: str) -> None:
        """Count a message that does not fit the contract, and log it unless one was logged within `WARN_EVERY_S`."""
        self._bad_messages += 1
        now = self._loop.time()
        if now - self._warned_at >= WARN_EVERY_S:
            self._warned_at = now
            _log.warning("bad message from the router", error=error, **self._where)

    def _tick(self) -> None:
        now = self._loop.time()
        self._run(self._membership.tick(now))
        self._log_absence(now)

    def _log_absence(self, now: float) -> None:
        """Log why the router may be away when that lasts longer than a restart, and log its return."""
        if self.live:
            if self._absence_logged:
                _log.info("the router is there", away_s=round(now - self._live_at, 1), **self._where)
            self._live_at, self._absence_logged, self._log_absence_at = now, False, now + MISSING_AFTER_S
        elif now >= self._log_absence_at:
            self._absence_logged, self._log_absence_at = True, now + MISSING_AGAIN_S
            reason = descriptors.none_left() or self.explain_absence()
            _log.warning("the router is missing", reason=reason, **self._where)

    def _run(self, actions: list[Action]) -> None:
        """Perform the actions of the membership, in order."""
        for action in actions:
            match action:
                case Deliver(body):
                    self._deliver(body)
                case SendHeartbeat():
                    self._send_due_heartbeat()
                case SendHello(attempt):
                    queued = self._send(0, msgspec.structs.replace(self._hello, attempt=attempt))
                    self._membership.hello_sent(queued)
                case Joined(_, new_epoch, router_ms):
                    if new_epoch:
                        self.clock.restart()
                    self.clock.observe(router_ms, clock.now_ms())
                    self._metrics_at = float("-inf")
                    self._transport.on_joined()
                    if self._on_joined is not None:
                        with supervisor.current().guarding("joining the router"):
                            self._on_joined(new_epoch)
                    if self._snapshot_task is not None:
                        self._snapshot_task.cancel()
                    self._snapshot_task = self._loop.create_task(self._send_snapshot(), name="bus snapshot")
                case Left():
                    self._ready.clear()
                    self._transport.drop_frames()
                    self._fail_pending()
                    if self._on_lost is not None and not self._closed:
                        with supervisor.current().guarding("losing the router"):
                            self._on_lost()

    def _deliver(self, body: FromRouter) -> None:
        """Hand a message to the request that waits for it, or to `on_message`.

        A term that no router of this epoch can have granted or been told is not taken over: later ones would not count.
        """
        term, terms_end = getattr(body, "term", 0), (self._membership.epoch << 20) + 2 * TERM_ROOM
        if term >= terms_end:
            self._on_bad_message(f"{type(body).__name__} with term {term}, expected below {terms_end}")
            return
        if isinstance(body, RouterHeartbeat):
            self.clock.observe(body.now, clock.now_ms())
            supervisor.current().pulse()
        elif isinstance(body, AlertNotification) and body.number:
            self._last_alert = self._membership.epoch, body.number
        if not isinstance(body, Reply):
            self._on_message(body)
            return
        future = self._pending.get(body.request)
        if future is not None and not future.done():
            future.set_result(body)
        else:
            self._release_unclaimed(body)

    async def _send_snapshot(self) -> None:
        """Send the snapshot; when it fails, join again, because without `SnapshotEnd` requests would wait for ever."""
        try:
            await self._send_state()
        except Exception as error:
            supervisor.current().failed("snapshot for the router", error)
            await asyncio.sleep(SNAPSHOT_AGAIN_S)
            self._run(self._membership.send_failed(self._loop.time()))

    async def _send_state(self) -> None:
        """Send what `snapshot` yields, and `SnapshotEnd`; stop when the router goes away."""
        publications = interests = sent = 0
        async for body in self._snapshot():
            if not self.send(body):
                return
            publications += isinstance(body, PublicationState)
            interests += isinstance(body, Interest)
            sent += 1
            if sent % SNAPSHOT_TURN == 0:
                await asyncio.sleep(0)
        epoch, number = self._last_alert
        if self.send(
            SnapshotEnd(publications=publications, interests=interests, alerts_epoch=epoch, last_alert=number)
        ):
            self._ready.set()  # requests from here on reach a router that knows this member's state

    def _fail_pending(self) -> None:
        """Make every pending request send itself again, when the router is back."""
        for future in self._pending.values():
            if not future.done():
                future.set_exception(RouterUnavailable("the router went away"))
