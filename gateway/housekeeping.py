"""The periodic work of a gateway: stream states, demand, counts of connections, idle sockets, freed memory."""

from __future__ import annotations

import asyncio
from typing import Final

from watchout.common import metric_names, supervisor
from watchout.common.clock import now_ms
from watchout.common.process import memory
from watchout.common.supervisor import Alarm, Periodic
from watchout.gateway.context import Context
from watchout.gateway.listen import tls
from watchout.gateway.listen.tls import Certificate
from watchout.gateway.silence import LOOK_EVERY_S
from watchout.gateway.sweep import Sweep
from watchout.gateway.why.recorder import note_rates

#: Seconds between two updates of stream states, demand and connection counts.
TICK_S: Final = 1.0
#: Seconds between two looks whether a client wants pings in silences, the first of which comes after 5 s or more.
LOOK_AT_NONE_EVERY_S: Final = 1.0
#: Seconds between two checks whether to return freed memory to the system.
TRIM_EVERY_S: Final = 5.0
#: Memory is returned after this many connections have closed since the highest count.
TRIM_AFTER_CONNECTIONS: Final = 20


class Housekeeping:
    """The periodic tasks of one gateway; `gateway.app` starts them after the port is open.

    Args:
        context: What the gateway's connections share.
        certificate: The certificate of the port, which is loaded again when its files change; None: no TLS.
    """

    def __init__(self, context: Context, certificate: Certificate | None) -> None:
        self._context = context
        self._certificate = certificate
        self._rate_alarm: Alarm | None = None

    def begin(self) -> list[Periodic]:
        """Start all tasks under the supervisor; each runs until its `Periodic` is closed."""
        context = self._context
        every, loop, hub = supervisor.current().every, asyncio.get_running_loop(), context.hub
        self._rate_alarm = Alarm(self._release_waiting, "frames that wait for a frame rate")
        hub.delivery.rate_waits.on_earlier = self._rate_alarm.set
        sweep = Sweep(context.sockets, context.moving_pictures, context.settings)
        begun = [
            every(TICK_S, lambda: hub.tick(loop.time(), now_ms()), "states of streams"),
            every(TICK_S, lambda: hub.notices.send_demand(loop.time(), now_ms()), "demand"),
            every(TICK_S, self._note_rates, "rates and drops"),
            every(TICK_S, self._count_connections, "counts of connections"),
            every(TRIM_EVERY_S, self._trim_memory, "memory to give back"),
            every(sweep.every_s, sweep.run, "sweep of sockets"),
            every(self._look_every_s, self._ping_silent, "pings in silences"),
        ]
        if self._certificate is not None:
            begun.append(every(tls.LOOK_EVERY_S, self._certificate.look, "certificate"))
        return begun

    def _look_every_s(self) -> float:
        """Return the seconds until silences are looked at again: a socket that enters the table is due later."""
        return LOOK_EVERY_S if self._context.silences else LOOK_AT_NONE_EVERY_S

    def _count_connections(self) -> None:
        context, metrics = self._context, self._context.metrics
        metrics.set(metric_names.CONNECTIONS, context.connections.total)
        metrics.set(metric_names.CONNECTIONS_LIMIT, context.connections.most)
        metrics.set(metric_names.UNAUTHENTICATED_CONNECTIONS, context.connections.unauthenticated)
        metrics.set(metric_names.UNFINISHED_BYTES, context.unfinished.bytes)
        if self._certificate is not None and self._certificate.expires_at is not None:
            metrics.set(metric_names.TLS_CERTIFICATE_EXPIRES, self._certificate.expires_at)
        metrics.set(metric_names.WAITING_FRAME_BYTES, context.waiting_frames.total_bytes)
        metrics.set(metric_names.WAITING_FRAMES_EVICTED, context.waiting_frames.evicted)

    def _note_rates(self) -> None:
        """Note the rates of publishers, and the frames that viewers behind an outbound queue dropped in this second."""
        now, hub = asyncio.get_running_loop().time(), self._context.hub
        for subscription in note_rates(hub.publications(), hub.streams, now):
            self._context.count_dropped(subscription)

    def _trim_memory(self) -> None:
        """Return memory to the system after many connections have closed: the allocator would keep it."""
        connections = self._context.connections
        if connections.peak - connections.total >= TRIM_AFTER_CONNECTIONS:
            memory.give_back()
            connections.peak = connections.total

    def _release_waiting(self) -> None:
        """Send the frames that waited until the frame rate of their receiver permits them."""
        assert self._rate_alarm is not None
        waits, guarding = self._context.hub.delivery.rate_waits, supervisor.current().guarding
        now = asyncio.get_running_loop().time()
        for waiter in waits.take_due(now):
            with guarding("a frame that waited for a frame rate"):
                again_at = waiter.release_waiting(now)
                if again_at is not None:
                    waits.enter(waiter, again_at)
        self._rate_alarm.set(waits.next_at())

    def _ping_silent(self) -> None:
        """Send a `ping` to the clients that asked for one in such a silence."""
        now, guarding = asyncio.get_running_loop().time(), supervisor.current().guarding
        for socket in self._context.silences.take_due(now):
            with guarding("ping in a silence"):
                socket.ping_if_silent(now)
