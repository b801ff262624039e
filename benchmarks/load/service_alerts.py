"""Alerts of the ML side beside the frames of a run: `POST /alerts`, a burst at a time, on one connection."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Final

from benchmarks.load.model import LoadFault, Plan

HOST: Final = "127.0.0.1"
#: Alerts of one request.
BURST: Final = 20
#: An alert's number stands behind this.
NUMBER: Final = b'"number":'
#: How an alert begins, at a viewer.
BEGINNING: Final = b'{"type":"alert"'


class ServiceAlerts:
    """Sends the alerts of one run of the load; each has the next number.

    Args:
        plan: The run; the alerts are of its first stream.
        stream_id: Id of that stream.

    Attributes:
        sent: Alerts that the gateway has accepted.
    """

    def __init__(self, plan: Plan, stream_id: str) -> None:
        if plan.service_token is None:
            raise LoadFault("alerts of the ML side need the token of the ML side")
        self._rate = plan.alerts_per_s
        self._head = (
            f"POST /alerts HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {plan.service_token}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self._port, self._stream_id = plan.ports[0], stream_id
        self.sent = 0

    async def send(self) -> None:
        """Send bursts by the clock until cancelled. Raises `LoadFault` when one is not accepted."""
        reader, writer = await asyncio.open_connection(HOST, self._port)
        begun, bursts = time.perf_counter(), 0
        try:
            while True:
                await asyncio.sleep(begun + bursts * BURST / self._rate - time.perf_counter())
                await self._burst(reader, writer)
                bursts += 1
        except (OSError, EOFError) as e:
            raise LoadFault(f"POST /alerts: {e}") from e
        finally:
            writer.close()

    async def _burst(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = json.dumps([self._alert(self.sent + 1 + more) for more in range(BURST)]).encode()
        writer.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        self.sent += BURST  # now: the first ones may arrive before the response
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status, length = head.split(" ", 2)[1], head.partition("content-length:")[2]
        said = await reader.readexactly(int(length.split("\r\n", 1)[0])) if length else b""
        if status not in ("200", "202"):
            raise LoadFault(f"POST /alerts was answered with {status} {said[:300].decode(errors='replace')}")

    def _alert(self, number: int) -> dict[str, object]:
        return {
            "type": "alert", "streamId": self._stream_id, "severity": "low", "message": "a person at the door",
            "timestamp": int(time.time() * 1000), "metadata": {"number": number},
        }  # fmt: skip


def number_of(buffer: bytearray, begin: int, end: int) -> int | None:
    """The number of the alert that stands there; None: it is no alert of `ServiceAlerts`."""
    if not buffer.startswith(BEGINNING, begin, end):
        return None
    at = buffer.find(NUMBER, begin, end)
    return int(buffer[at + len(NUMBER) : end].split(b"}", 1)[0]) if at >= 0 else None
