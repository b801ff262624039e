"""One run of the load: sets up the connections, sends frames by the clock, and reports what arrived."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import secrets
import socket
import struct
import time
from array import array
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.clientwire import Inbox, LengthInbox, WebSocketInbox
from benchmarks.figures import percentile
from benchmarks.load.clients import HOST, Camera, Idle, SlowViewer, Viewer
from benchmarks.load.frames import Messages, pictures
from benchmarks.load.model import CIPHER, LoadFault, Plan
from benchmarks.load.service_alerts import ServiceAlerts
from benchmarks.tls import client_context

#: After the last frame was sent, what is still under way may take this long.
GRACE_S: Final = 2.0
SETUP_S: Final = 30.0
SETUP_PER_CONNECTION_S: Final = 0.01
#: Connections that are set up at once.
AT_ONCE: Final = 64
#: The timer that wakes the cameras is not finer than this.
FINEST_TICK_S: Final = 0.000_25
SPARE_FILES: Final = 200
#: Buffers of so many viewers at most hold several messages.
FEW_VIEWERS: Final = 200


class Run:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.mask = bytes(secrets.randbelow(255) + 1 for _ in range(4))
        self.messages = Messages(plan, pictures(plan.picture_bytes), base=int(time.time() * 1000), mask=self.mask)
        self.begun = self.ended = float("inf")
        self.latencies = array("d")
        self.lateness = array("d")
        self.corrupt = 0
        self.reordered = 0
        self.first_corrupt: str | None = None
        self._tls = None if plan.trust is None else client_context(Path(plan.trust))
        self._broken: asyncio.Future[None] | None = None
        self._ending = False

    def inbox(self, size: int) -> Inbox:
        return LengthInbox(size) if self.plan.dialect == "raw" else WebSocketInbox(size)

    def corrupted(self, what: str) -> None:
        self.corrupt += 1
        self.first_corrupt = self.first_corrupt or what

    def failed(self, why: str) -> None:
        """End the run with this; only the first one counts."""
        if self._broken is not None and not self._broken.done() and not self._ending:
            self._broken.set_exception(LoadFault(why))

    async def result(self) -> dict[str, Any]:
        """Set up, run, and say what was seen. Raises `LoadFault`."""
        loop = asyncio.get_running_loop()
        self._broken = loop.create_future()
        work = loop.create_task(self._worked())
        try:
            await asyncio.wait((work, self._broken), return_when=asyncio.FIRST_COMPLETED)
            if self._broken.done():
                self._broken.result()
            return await work
        finally:
            self._ending = True
            work.cancel()
            self._broken.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _worked(self) -> dict[str, Any]:
        plan = self.plan
        connections = plan.streams * (1 + plan.viewers_per_stream) + plan.idle + (plan.slow.viewers if plan.slow else 0)
        _room_for(connections)
        size = self.messages.largest_bytes + 512
        if plan.streams * plan.viewers_per_stream <= FEW_VIEWERS:
            size *= 3
        cameras = [Camera(self, i) for i in range(plan.streams)]
        viewers = [Viewer(self, camera, size) for _ in range(plan.viewers_per_stream) for camera in cameras]
        slow = [SlowViewer(self, cameras[0], size, plan.slow) for _ in range(plan.slow.viewers)] if plan.slow else []
        idle = [Idle(self) for _ in range(plan.idle)]
        if idle:
            await _marked("before", plan.settle_s)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(SETUP_S + SETUP_PER_CONNECTION_S * connections):
                for port in dict.fromkeys(plan.ports):
                    await self._set_up([c for c in cameras if plan.port_of(c.stream, publishes=True) == port], port)
                for port in dict.fromkeys(plan.ports):
                    await self._set_up([v for v in viewers if plan.port_of(v.stream, publishes=False) == port], port)
                await self._set_up(slow, plan.ports[-1], plan.slow.receive_buffer_bytes if plan.slow else None)
                await self._set_up(idle, plan.ports[-1])
        except TimeoutError:
            raise LoadFault(f"{connections} connections were not set up in time") from None
        connect_s = time.perf_counter() - began
        if idle:
            await _marked("idle", plan.settle_s)
        result: dict[str, Any] = {"connect_s": connect_s, "idle": plan.idle}
        if cameras:
            alerts = ServiceAlerts(plan, self.messages.ids[0]) if plan.alerts_per_s else None
            async with _beside(alerts):
                result |= await self._ran(cameras, slow)
            if alerts is not None:
                await self._all_alerts(alerts, [viewer for viewer in viewers if viewer.stream == 0])
                result["alerts"] = alerts.sent
        self._ending = True
        for connection in (*cameras, *viewers, *slow, *idle):
            connection.transport.abort()
        return result

    async def _set_up(
        self, connections: Sequence[Camera | Viewer | Idle], port: int, buffer: int | None = None
    ) -> None:
        loop = asyncio.get_running_loop()
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(connection: Camera | Viewer | Idle) -> None:
            async with turn:
                sock = socket.socket()
                try:
                    sock.setblocking(False)
                    if buffer is not None:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
                    # Thousands of ports are free again at once, not after a minute.
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    await loop.sock_connect(sock, (HOST, port))
                    name = HOST if self._tls is not None else None
                    await loop.create_connection(lambda: connection, sock=sock, ssl=self._tls, server_hostname=name)
                except OSError as e:
                    sock.close()
                    raise LoadFault(f"cannot connect to {HOST}:{port}: {e.strerror or e}") from e
                if self._tls is not None and (cipher := connection.transport.get_extra_info("cipher")[0]) != CIPHER:
                    raise LoadFault(f"the server takes the cipher {cipher}, expected {CIPHER} for all")
                await connection.set_up()
                if isinstance(connection, Viewer):
                    # One way of acknowledging for all: see docs/performance.md, "What is measured".
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

        try:
            async with asyncio.TaskGroup() as group:
                for connection in connections:
                    group.create_task(one(connection))
        except BaseExceptionGroup as e:
            raise e.exceptions[0] from None

    async def _ran(self, cameras: list[Camera], slow: list[SlowViewer]) -> dict[str, Any]:
        plan, loop = self.plan, asyncio.get_running_loop()
        slow_tasks = [loop.create_task(viewer.read_slowly()) for viewer in slow]
        rate = plan.streams * plan.fps
        warm, total = round(plan.warmup_s * rate), round((plan.warmup_s + plan.duration_s) * rate)
        if warm < 1 or total <= warm:
            raise LoadFault(f"no frame in {plan.warmup_s:g} s and then {plan.duration_s:g} s at {rate:g} frames per s")
        done: asyncio.Future[float] = loop.create_future()
        began_cpu = 0.0
        start = time.perf_counter() + 0.02
        turn = 0

        def wake() -> None:
            nonlocal turn, began_cpu
            now = time.perf_counter()
            while not done.done() and start + turn / rate <= now:
                if turn == warm:
                    began_cpu = time.process_time()
                    mark("start")
                    self.begun = time.perf_counter()
                elif turn == total:
                    mark("stop")
                    self.ended = time.perf_counter()
                    done.set_result(time.process_time() - began_cpu)
                    return
                if turn >= warm:
                    self.lateness.append(now - start - turn / rate)
                cameras[turn % len(cameras)].send()
                turn += 1
                now = time.perf_counter()

        with _ticking(max(1 / rate, FINEST_TICK_S), wake, first_s=start - time.perf_counter()):
            load_cpu_s = await done
        for task in slow_tasks:
            task.cancel()
        sent = sum(sum(self.begun <= at < self.ended for at in camera.sent_at) for camera in cameras)
        expected = sent * plan.viewers_per_stream
        give_up = loop.time() + GRACE_S
        while len(self.latencies) < expected and loop.time() < give_up:  # noqa: ASYNC110 - nobody tells of the last one
            await asyncio.sleep(0.02)
        delivered = len(self.latencies)
        return {
            "sent": sent,
            "not_sent": sum(camera.not_sent for camera in cameras),
            "expected": expected,
            "delivered": delivered,
            "missing": expected - delivered,
            "corrupt": self.corrupt,
            "first_corrupt": self.first_corrupt,
            "reordered": self.reordered,
            "latency_ms": _spread_ms(self.latencies),
            "lateness_ms": _spread_ms(self.lateness),
            "load_cpu_s": load_cpu_s,
            "measured_s": self.ended - self.begun,
            "message_bytes": self.messages.largest_bytes,
            "slow": self._slow_result(slow),
        }

    async def _all_alerts(self, alerts: ServiceAlerts, viewers: Sequence[Viewer]) -> None:
        """Wait until each of these viewers has all alerts, which `Viewer` has seen to come in order, without a gap."""
        give_up = time.perf_counter() + GRACE_S
        while late := [viewer for viewer in viewers if viewer.newest_alert < alerts.sent]:
            if time.perf_counter() > give_up:
                raise LoadFault(
                    f"{len(late)} of {len(viewers)} viewers had not all {alerts.sent} alerts in {GRACE_S:g} s"
                )
            await asyncio.sleep(0.02)

    def _slow_result(self, slow: list[SlowViewer]) -> dict[str, Any] | None:
        if self.plan.slow is None:
            return None
        ages = array("d", (age for viewer in slow for age in viewer.ages_s))
        return {
            "received": len(ages),
            "age_ms": _spread_ms(ages),
            "transfer_ms": 1000 * self.messages.largest_bytes / self.plan.slow.bytes_per_s,
        }


@contextlib.asynccontextmanager
async def _beside(alerts: ServiceAlerts | None) -> AsyncIterator[None]:
    """Send alerts meanwhile, if there are any. Raises `LoadFault` when one was not accepted."""
    if alerts is None:
        yield
        return
    sending = asyncio.create_task(alerts.send())
    try:
        yield
        if sending.done():
            sending.result()
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


@contextlib.contextmanager
def _ticking(every_s: float, call: Callable[[], None], *, first_s: float) -> Iterator[None]:
    """`call` in `first_s` seconds and then every so many; loop timers would come on whole milliseconds only."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise LoadFault(f"timerfd_create: {os.strerror(ctypes.get_errno())}")
    try:
        every_ns, first_ns = round(every_s * 1e9), max(1, round(first_s * 1e9))  # 0 would never come
        libc.timerfd_settime(fd, 0, struct.pack("@4l", *divmod(every_ns, 10**9), *divmod(first_ns, 10**9)), None)

        def read() -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 8)
            call()

        loop = asyncio.get_running_loop()
        loop.add_reader(fd, read)
        try:
            yield
        finally:
            loop.remove_reader(fd)
    finally:
        os.close(fd)


def mark(what: str) -> None:
    """Tell the runner of this moment."""
    os.write(2, f"{what}\n".encode())


async def _marked(what: str, settle_s: float) -> None:
    """Tell the runner, and hold still while it looks."""
    await asyncio.sleep(settle_s)
    mark(what)
    await asyncio.sleep(settle_s)


def _spread_ms(values_s: array[float]) -> dict[str, float] | None:
    if not values_s:
        return None
    ordered = sorted(values_s)
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {name: 1000 * percentile(ordered, share) for name, share in shares.items()}


def _room_for(connections: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise LoadFault(f"{connections} connections need {wanted} open files, the hard limit is {hard} (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
