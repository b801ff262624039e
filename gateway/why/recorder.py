"""Remembers for `watchout-ctl why` what happened to the connections of one gateway, and writes its access log."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from watchout.common.clock import now_ms
from watchout.common.settings import Settings
from watchout.common.why.incident import MAX_REASON_CHARS, Incident, IncidentKind
from watchout.common.why.memory import IncidentMemory
from watchout.gateway.hub.streams import LocalStream, Publication
from watchout.gateway.hub.subscription import DropReason, Subscription
from watchout.gateway.why.access_log import AccessLog
from watchout.gateway.why.tally import Ending, Tally
from watchout.gateway.why.tcp_info import TcpInfo

#: Seconds over which the highest rate of a publication is measured.
PEAK_OVER_S: Final = 5.0
#: How a connection ended of which nobody said how: its bytes ended, or the kernel gave it up.
LOST: Final = "the connection ended without a close frame"
#: Ends of connections that are remembered and logged in one turn of the event loop, about 0.1 ms each.
ENDS_IN_TURN: Final = 20


class _ErrorText(msgspec.Struct):
    """The fields of an error message to a client that are remembered."""

    code: str
    message: str
    stream_id: str = msgspec.field(default="", name="streamId")


@dataclass(frozen=True, slots=True)
class _Ended:
    """A connection that ended `at` this time, in ms since the epoch; the others as in `Recorder.closed`."""

    tally: Tally
    user: str | None
    path: str
    tcp: TcpInfo | None
    at: int


class Recorder:
    """What one gateway remembers; part of its `Context`. No method is called for each frame.

    Args:
        settings: `ACCESS_LOG` and `ACCESS_LOG_RATE`.
        memory: Where incidents are kept.
        name: The name of the process, with which the ids of its connections begin.
        now: Seconds of the loop's clock, or any time before it.

    Attributes:
        memory: The same.
        name: The same.
        started_ms: When the gateway started, in ms since the epoch.
    """

    def __init__(self, settings: Settings, memory: IncidentMemory, name: str, now: float = 0.0) -> None:
        self.memory = memory
        self.name = name
        self.started_ms = now_ms()
        self._log = AccessLog(settings.access_log_rate, now, enabled=settings.access_log)
        self._connections = 0
        self._prefix = f"{name}/{os.getpid()}."
        #: Connections that ended and wait for a turn, each once; how many more are recorded in the present turn.
        self._ended: deque[_Ended] = deque()
        self._room = ENDS_IN_TURN

    def begin(self, address: str) -> Tally:
        """Return the tally of a new connection.

        Args:
            address: The client's address.
        """
        self._connections += 1
        return Tally(f"{self._prefix}{self._connections}", address, now_ms())

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def closed(self, tally: Tally, *, user: str | None, path: str, tcp: TcpInfo | None) -> None:
        """Remember and log the end of an accepted connection, whose subscriptions and publication have ended.

        Past `ENDS_IN_TURN` ends the others are recorded in the next turns of the event loop, in their order.

        Args:
            tally: Its counts, which are final.
            user: The user it belonged to; None: nobody signed in.
            path: The path of its upgrade.
            tcp: What the kernel counted; None: unknown.
        """
        self._ended.append(_Ended(tally, user, path, tcp, now_ms()))
        if self._room == ENDS_IN_TURN:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._record_ends()

    def record_all_ends(self) -> None:
        """Record the ends that wait for a turn: the gateway ends."""
        while self._ended:
            self._record_end(self._ended.popleft())

    def _next_turn(self) -> None:
        self._room = ENDS_IN_TURN
        if self._ended:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._record_ends()

    def _record_ends(self) -> None:
        while self._ended and self._room:
            self._room -= 1
            self._record_end(self._ended.popleft())

    def _record_end(self, ended: _Ended) -> None:
        tally, at = ended.tally, ended.at
        ending = tally.ending or Ending(1006, LOST, "network")
        seconds = round(max(0, at - tally.began_ms) / 1000, 3)
        waiting = tally.waiting or (0, 0)
        numbers = {
            "seconds": seconds,
            "frames_in": tally.frames_in,
            "frames_out": tally.frames_out,
            "alerts_in": tally.alerts_in,
            "alerts_out": tally.alerts_out,
            "bytes_in": 0 if ended.tcp is None else ended.tcp.received,
            "bytes_out": 0 if ended.tcp is None else ended.tcp.acked,
            "limited": tally.limited,
            "messages_waiting": waiting[0],
            "bytes_waiting": waiting[1],
            **{f"dropped_{reason}": count for reason, count in tally.dropped.items()},
        }
        self.memory.add(
            Incident(
                what=IncidentKind.CLOSED, at=at, streams=tuple(tally.streams), user=ended.user or "",
                connection=tally.connection, address=tally.address, code=ending.code,
                reason=ending.reason[:MAX_REASON_CHARS], by=ending.by,
                numbers={name: value for name, value in numbers.items() if value},
            )
        )  # fmt: skip
        more = f",… {tally.more_streams} more" if tally.more_streams else ""
        fields = {
            "connection": tally.connection,
            "address": tally.address,
            "user": ended.user,
            "path": ended.path,
            "streams": ",".join(tally.streams) + more,
            **{name: value for name, value in numbers.items() if value or name in _ALWAYS},
            "code": ending.code,
            "reason": ending.reason,
            "by": ending.by,
        }
        self._log.closed(asyncio.get_running_loop().time(), fields)

    def refused(self, address: str, status: int, code: str, reason: str) -> None:
        """Remember and log a handshake that was refused, or cut.

        Args:
            address: The client's address; empty when it is not known.
            status: HTTP status of the response; 0: there was none.
            code: Error code.
            reason: The text of the error.
        """
        text = f"{code}: {reason}"[:MAX_REASON_CHARS]
        incident = Incident(what=IncidentKind.REFUSED, at=now_ms(), address=address, code=status, reason=text)
        self.memory.add(incident, (IncidentKind.REFUSED, address, text))
        fields = {"address": address, "status": status, "error": code, "reason": reason}
        self._log.refused(asyncio.get_running_loop().time(), fields)

    def refused_request(self, address: str, request: str, reason: str) -> None:
        """Remember a login over HTTP that was refused.

        Args:
            address: The client's address; empty when it is not known.
            request: Its method and path.
            reason: Why, without a secret.
        """
        text = f"{request}: AUTH_FAILED: {reason}"[:MAX_REASON_CHARS]
        incident = Incident(what=IncidentKind.REFUSED, at=now_ms(), address=address, code=401, reason=text)
        self.memory.add(incident, (IncidentKind.REFUSED, address, text))

    # ── while it lasts ───────────────────────────────────────────────────────────────────────────────────────────

    def error(self, tally: Tally, user: str | None, message: bytes) -> None:
        """Remember an error that was sent to a client.

        Args:
            tally: The client's.
            user: Its user; None: nobody signed in.
            message: The error as it is written, a whole WebSocket frame.
        """
        try:
            error = msgspec.json.decode(message[message.index(b"{") :], type=_ErrorText)
        except (msgspec.MsgspecError, ValueError):
            return
        text = f"{error.code}: {error.message}"[:MAX_REASON_CHARS]
        incident = Incident(
            what=IncidentKind.ERROR, at=now_ms(), streams=(error.stream_id,) if error.stream_id else (),
            user=user or "", connection=tally.connection, address=tally.address, reason=text,
        )  # fmt: skip
        self.memory.add(incident, (IncidentKind.ERROR, tally.connection, error.code, error.stream_id))

    def limited(self, tally: Tally, user: str | None, stream: str, count: int) -> None:
        """Remember messages of a client that were over the rates.

        Args:
            tally: The client's, to which they are added.
            user: Its user; None: nobody signed in.
            stream: The stream that it publishes; empty: none.
            count: How many there were since the last call.
        """
        tally.limited += count
        incident = Incident(
            what=IncidentKind.LIMITED, at=now_ms(), count=count, streams=(stream,) if stream else (), user=user or "",
            connection=tally.connection, address=tally.address,
        )  # fmt: skip
        self.memory.add(incident, (IncidentKind.LIMITED, tally.connection, stream))

    def dropped(self, subscription: Subscription, dropped: Mapping[DropReason, int]) -> None:
        """Remember frames that were not sent to a viewer since the last call.

        Args:
            subscription: The viewer's subscription.
            dropped: How many, by reason.
        """
        numbers = {str(reason): float(count) for reason, count in dropped.items() if count}
        if numbers:
            self.memory.add(
                Incident(
                    what=IncidentKind.DROPPED, at=now_ms(), streams=(subscription.stream,),
                    user=subscription.identity.user_id, connection=subscription.connection, numbers=numbers,
                ),
                (IncidentKind.DROPPED, subscription.connection, subscription.stream),
            )  # fmt: skip

    def unsubscribed(self, subscription: Subscription) -> None:
        """Remember that a viewer ended a subscription and its connection goes on.

        Args:
            subscription: The subscription.
        """
        incident = Incident(
            what=IncidentKind.UNSUBSCRIBED, at=now_ms(), streams=(subscription.stream,),
            user=subscription.identity.user_id, connection=subscription.connection,
        )  # fmt: skip
        self.memory.add(incident, (IncidentKind.UNSUBSCRIBED, subscription.connection, subscription.stream))

    def told(self, stream: str, alert: str, viewers: int, publishers: int) -> None:
        """Remember that an alert was written to clients here.

        Args:
            stream: Its stream.
            alert: Its id.
            viewers: How many viewers got it.
            publishers: How many publishers got it.
        """
        numbers = {"viewers": float(viewers), "publishers": float(publishers)}
        self.memory.add(Incident(what=IncidentKind.TOLD, at=now_ms(), streams=(stream,), alert=alert, numbers=numbers))

    def of_everybody(self, what: IncidentKind, reason: str = "") -> None:
        """Remember what concerns every client of this gateway.

        Args:
            what: What happened.
            reason: More about it.
        """
        self.memory.add(Incident(what=what, at=now_ms(), reason=reason))


def note_rates(publications: Iterable[Publication], streams: Iterable[LocalStream], now: float) -> list[Subscription]:
    """Note the highest rate of each publication, and return the subscriptions that may have dropped frames.

    Args:
        publications: All publications of this gateway.
        streams: All streams of this gateway.
        now: Seconds of the loop's clock.
    """
    for publication in publications:
        elapsed_s, total = now - publication.noted_at, publication.meter.total
        if elapsed_s >= PEAK_OVER_S:
            publication.peak_fps = max(publication.peak_fps, (total - publication.frames_noted) / elapsed_s)
            publication.frames_noted, publication.noted_at = total, now
    return [subscription for stream in streams if stream.queued for subscription in stream.queued]


#: Counts of the access log that are written also when they are 0.
_ALWAYS: Final = frozenset({"seconds", "frames_in", "frames_out", "bytes_in", "bytes_out"})
