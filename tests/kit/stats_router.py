"""A router for tests of the operator's tool: welcomes, answers a query and an alert, and beats."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from watchout.common.alerts.model import Alert
from watchout.common.bus.membership import HEARTBEAT_EVERY_S
from watchout.common.bus.messages import (
    AcceptedReply,
    Bye,
    FromRouter,
    Hello,
    Query,
    QueryReply,
    RaiseAlert,
    RefusedReply,
    RouterHeartbeat,
    Welcome,
    decode_from_member,
    encode,
)
from watchout.common.bus.zeromq.local import LocalRouterTransport


class FakeRouter:
    """Answers each query with `stats`; alerts go to `receivers`, or get `refusal`; with `mute` nothing is answered.

    With `page_rows` it replies without streams and with pages of so many; else as the former release does.
    """

    def __init__(self, home: Path, stats: Any) -> None:
        self.stats = stats
        self.refusal: str | None = None
        self.mute = False
        self.page_rows: int | None = None
        self.receivers = 3
        self.hellos: list[Hello] = []
        self.alerts: list[Alert] = []
        self.byes = 0
        self.malformed = 0
        self._sent: dict[bytes, int] = {}
        self._bus = LocalRouterTransport(
            home, max_message_bytes=1 << 20, on_control=self._came, on_frame=lambda _: None
        )
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_soon(self._beat)

    def close(self) -> None:
        self._timer.cancel()
        self._bus.close()

    def _send(self, member: bytes, body: FromRouter) -> None:
        self._sent[member] = self._sent.get(member, 0) + 1
        self._bus.send_control(member, encode(1, self._sent[member], body))

    def _beat(self) -> None:
        for member in self._sent:
            self._send(member, RouterHeartbeat())
        self._timer = self._loop.call_later(HEARTBEAT_EVERY_S, self._beat)

    def _short(self, query: Query, most: int) -> dict[str, Any]:
        rows = self.stats["streams"]
        if query.what == "stats":
            return {**self.stats, "streams": [], "totals": {**self.stats["totals"], "streams": len(rows)}}
        rest = [row for row in rows if row["streamId"] > query.after]
        return {"rows": rest[:most], "more": len(rest) > most}

    def _came(self, member: bytes, data: bytes) -> None:
        body = decode_from_member(data).body
        match body:
            case Hello():
                self.hellos.append(body)
                self._sent[member] = 0
                self._send(member, Welcome(attempt=body.attempt))
            case Bye():
                self.byes += 1
                self._sent.pop(member, None)
            case Query() if not self.mute:
                reply = self.stats if self.page_rows is None else self._short(body, self.page_rows)
                self._send(member, QueryReply(request=body.request, body=reply))
            case RaiseAlert() if not self.mute:
                if self.refusal is not None:
                    self._send(member, RefusedReply(request=body.request, code="UNAUTHORIZED", message=self.refusal))
                else:
                    self.alerts.append(body.alert)
                    self._send(member, AcceptedReply(request=body.request, id=body.alert.id, receivers=self.receivers))
