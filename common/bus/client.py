"""A member's live bond with the router: `Membership` driven by the bus and the clock, and requests with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import msgspec

from watchout.common import log, supervisor
from watchout.common.bus.membership import (
    BEAT_EVERY_S,
    HELLO_EVERY_S,
    Action,
    BondState,
    Deliver,
    Joined,
    Lost,
    Membership,
    SendHeartbeat,
    SendHello,
)
from watchout.common.bus.messages import (
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
    SnapshotEnd,
    decode_from_router,
    encode,
)
from watchout.common.bus.reply_records import R, read_reply
from watchout.common.bus.zeromq.control import MemberBus, new_member_id
from watchout.common.bus.zeromq.tcp import RemoteMemberBus, RouterAddress
from watchout.common.errors import BusError, RouterUnavailable
from watchout.common.process import missing
from watchout.common.toolbox.futures import retrieve_exception

#: Requests that may wait for the router at once; past it they fail at once.
MAX_PENDING: Final = 10_000
#: A router that is away for so long is said to be missing, and again after the other.
MISSING_AFTER_S: Final = 2.0
MISSING_AGAIN_S: Final = 60.0
#: Messages of a snapshot between two turns of the loop.
SNAPSHOT_TURN: Final = 200
#: A snapshot that failed is told again after so long, in seconds.
SNAPSHOT_AGAIN_S: Final = 1.0

_log = log.get("common.bus.client")


def _why_missing(home: Path, router: RouterAddress | None) -> str:
    if router is None:
        return missing.no_router(home)
    return (
        f"the router at {router.url} cannot be reached: is it started with ROUTER_LISTEN, is its port reachable from "
        "here, and is this bridge's key allowed there (`watchout-ctl keys list`)?"
    )


class BusClient:
    """One member's bond. Its owner gives the callbacks; all of them run in the loop.

    The router is the one of `home` on this machine, or the one at `router`, over TCP.
    `snapshot` yields everything the member holds, after each greeting. `on_message` gets what is no answer to a
    request. `on_lost` tells that the router is away; what the member does locally goes on.
    """

    def __init__(
        self,
        hello: Hello,
        *,
        home: Path,
        max_message_bytes: int,
        request_timeout_s: float,
        snapshot: Callable[[], AsyncIterator[Message]],
        metrics: Callable[[], dict[str, float]],
        on_message: Callable[[FromRouter], None],
        on_frame: Callable[[bytes], None] | None = None,
        on_joined: Callable[[bool], None] | None = None,
        on_lost: Callable[[], None] | None = None,
        router: RouterAddress | None = None,
    ) -> None:
        self.member_id = new_member_id(remote=router is not None)
        self._hello = hello
        self._request_timeout_s = request_timeout_s
        self._snapshot = snapshot
        self._metrics = metrics
        self._on_message = on_message
        self._on_joined = on_joined
        self._on_lost = on_lost
        self._membership = Membership()
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, asyncio.Future[Reply]] = {}
        self._requests = itertools.count(1)
        self._asking = 0
        self._ready = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None
        self._closed = self._over = False
        self._bad_messages = 0
        #: The router's epoch and the number of the last alert that came.
        self._alerts_heard = (0, 0)
        self._live_at = self._loop.time()
        self._absence_told = False
        self._tell_absence_at = self._live_at + MISSING_AFTER_S
        self._why_missing = functools.partial(_why_missing, home, router)
        self._bus: MemberBus | RemoteMemberBus
        if router is None:
            self._bus = MemberBus(
                home,
                self.member_id,
                max_message_bytes=max_message_bytes,
                on_control=self._came,
                on_frame=on_frame,
            )
        else:
            self._bus = RemoteMemberBus(
                router,
                self.member_id,
                max_message_bytes=max_message_bytes,
                on_control=self._came,
                on_frame=on_frame,
            )
        self._ticks = supervisor.current().every(
            lambda: BEAT_EVERY_S if self.live else HELLO_EVERY_S, self._tick, "beats to the router", first_s=0
        )

    @property
    def live(self) -> bool:
        """Whether the router knows this member now."""
        return not self._over and self._membership.state is BondState.LIVE

    @property
    def bad_messages(self) -> int:
        """Messages and frames of the router that did not fit."""
        return self._bad_messages + self._bus.malformed

    @property
    def frames_sent(self) -> int:
        """Frames that went to the router."""
        return self._bus.frames_sent

    @property
    def frames_skipped(self) -> int:
        """Frames that waited for the router and were not sent."""
        return self._bus.frames_skipped

    @property
    def epoch(self) -> int:
        """The router's epoch, 0 before the first greeting was answered."""
        return self._membership.epoch

    async def wait_live(self, timeout_s: float) -> bool:
        """Wait for the bond; whether it stands."""
        try:
            async with asyncio.timeout(timeout_s):  # wait_for of Python 3.11 can swallow a cancellation
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    def send(self, body: Message) -> bool:
        """Tell the router; False when it is away: the next snapshot tells it then."""
        if not self.live:
            return False
        if self._put(self._membership.next_seq(), body):
            return True
        self._run(self._membership.send_failed(self._loop.time()))
        return False

    async def request(self, make: Callable[[int], Message], timeout_s: float | None = None) -> Reply:
        """Send a request, once the router is there, and wait for its answer. Raises `RouterUnavailable`.

        When the router goes meanwhile it is asked again on its return: no request does harm twice.
        """
        if self._asking >= MAX_PENDING:
            raise RouterUnavailable(f"{MAX_PENDING} requests wait for the router")
        number = next(self._requests)
        self._asking += 1
        try:
            async with asyncio.timeout(timeout_s or self._request_timeout_s):
                while True:
                    await self._ready.wait()
                    if self.send(make(number)):
                        self._pending[number] = self._loop.create_future()
                        with contextlib.suppress(RouterUnavailable):
                            return await self._pending[number]
        except TimeoutError:
            # An answer that came in the very turn of the deadline is nobody's: a grant is given back.
            pending = self._pending.get(number)
            if pending is not None and pending.done() and not pending.cancelled() and pending.exception() is None:
                self._give_back(pending.result())
            raise RouterUnavailable("the router did not answer in time") from None
        finally:
            self._asking -= 1
            last = self._pending.pop(number, None)
            if last is not None:
                retrieve_exception(last)

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

    def _give_back(self, reply: Reply) -> None:
        if isinstance(reply, GrantedReply):
            self.send(Release(stream=reply.stream, term=reply.term))

    def send_heartbeat(self) -> bool:
        """Tell the figures now, not at the next beat."""
        return self.send(MemberHeartbeat(metrics=self._metrics()))

    def send_frame(self, *parts: bytes | memoryview, patience_s: float = 0.0) -> bool:
        """Push a frame, its head in the first part; False when the router is away.

        When the router is behind, the newest frame of each stream waits (`common.bus.peer_queue`). With patience it may
        wait so long for other frames to go with.
        """
        if not self.live:
            return False
        self._bus.send_frame(parts, patience_s)
        return True

    async def close(self) -> None:
        """Say good-bye and close the sockets."""
        if self._closed:
            return
        self._closed = True
        self._ticks.cancel()
        if self._telling is not None:
            self._telling.cancel()
        self.send(Bye())
        self._over = True  # whoever still asks is told that the router is away
        self._ready.clear()
        self._fail_pending()
        self._bus.close()

    def _put(self, seq: int, body: Message) -> bool:
        try:
            return self._bus.send_control(encode(self._membership.epoch, seq, body))
        except BusError as exc:
            _log.error("a message is too large for the bus", error=str(exc))
            return False

    def _came(self, data: bytes) -> None:
        try:
            envelope = decode_from_router(data)
        except BusError as exc:
            self._bad_messages += 1
            _log.warning("bad message from the router", error=str(exc))
            return
        self._run(self._membership.received(envelope, self._loop.time()))

    def _tick(self) -> None:
        now = self._loop.time()
        self._run(self._membership.tick(now))
        self._tell_of_absence(now)

    def _tell_of_absence(self, now: float) -> None:
        """Say which process is missing when the router is away for longer than a restart takes, and when it is back."""
        if self.live:
            if self._absence_told:
                _log.info("the router is there", away_s=round(now - self._live_at, 1))
            self._live_at, self._absence_told, self._tell_absence_at = now, False, now + MISSING_AFTER_S
        elif now >= self._tell_absence_at:
            self._absence_told, self._tell_absence_at = True, now + MISSING_AGAIN_S
            _log.warning("the router is missing", reason=self._why_missing())

    def _run(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Deliver(body):
                    if isinstance(body, AlertNotification):
                        self._alerts_heard = self._membership.epoch, body.number
                    if isinstance(body, Reply):
                        future = self._pending.get(body.request)
                        if future is not None and not future.done():
                            future.set_result(body)
                        else:  # nobody waits for it any more
                            self._give_back(body)
                    else:
                        self._on_message(body)
                case SendHeartbeat():
                    self.send_heartbeat()
                case SendHello(attempt):
                    queued = self._put(0, msgspec.structs.replace(self._hello, attempt=attempt))
                    self._membership.greeted(queued)
                case Joined(_, new_epoch):
                    self._bus.joined()
                    if self._on_joined is not None:
                        with supervisor.current().guarding("joining the router"):
                            self._on_joined(new_epoch)
                    if self._telling is not None:
                        self._telling.cancel()
                    self._telling = self._loop.create_task(self._tell_all(), name="link snapshot")
                case Lost():
                    self._ready.clear()
                    self._bus.forget_frames()
                    self._fail_pending()
                    if self._on_lost is not None and not self._closed:
                        with supervisor.current().guarding("losing the router"):
                            self._on_lost()

    async def _tell_all(self) -> None:
        try:
            await self._tell_snapshot()
        except Exception as error:  # a router that is not told all would never be asked: greet again
            supervisor.current().failed("snapshot for the router", error)
            await asyncio.sleep(SNAPSHOT_AGAIN_S)
            self._run(self._membership.send_failed(self._loop.time()))

    async def _tell_snapshot(self) -> None:
        publications = interests = told = 0
        async for body in self._snapshot():
            if not self.send(body):
                return
            publications += isinstance(body, PublicationState)
            interests += isinstance(body, Interest)
            told += 1
            if told % SNAPSHOT_TURN == 0:
                await asyncio.sleep(0)
        epoch, heard = self._alerts_heard
        if self.send(SnapshotEnd(publications=publications, interests=interests, alerts_epoch=epoch, last_alert=heard)):
            self._ready.set()  # what is asked from now on is asked of a router that knows this member

    def _fail_pending(self) -> None:
        for future in self._pending.values():
            if not future.done():
                future.set_exception(RouterUnavailable("the router went away"))
