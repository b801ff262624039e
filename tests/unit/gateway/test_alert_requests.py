"""What a router accepted in its last moment: its successor gets it once, whenever the gateway sees the reply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import pytest

from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.common.alerts.model import Alert
from watchout.common.bus.messages import (
    AcceptedReply,
    AcknowledgedReply,
    AcknowledgeRequest,
    Message,
    RaiseAlert,
    Reply,
)
from watchout.common.bus.reply_records import AlertFrameRow
from watchout.common.bus.router_clock import RouterClock
from watchout.common.metrics import Metrics
from watchout.gateway.alert_requests import AlertRequests

ALERT: Final = Alert(id="a", stream_id="cam", severity="low", message="m", timestamp=1)
ROW: Final = AlertFrameRow(stream="cam", owner="ann", term=0, frame_id=0, kept=False, json=ALERT.to_json(), at=5)


class Link:
    """The connection to a router, and all routers; `meanwhile` is called after a reply, before its caller has it."""

    slot = 0
    fenced = False

    def __init__(self) -> None:
        self.epoch = 5
        self.clock = RouterClock()
        self.sent: list[Message] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def of(self, _stream: str) -> Any:
        return self

    def at(self, _slot: int) -> Any:
        return self

    def begin(self, make: Callable[[int], Message]) -> asyncio.Future[Reply]:
        self.sent.append(make(2))
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        future.set_result(reply_to(self.sent[-1]))
        return future

    async def request(self, make: Callable[[int], Message]) -> Reply:
        body = make(1)
        self.meanwhile()
        return reply_to(body)


def reply_to(body: Message) -> Reply:
    if isinstance(body, RaiseAlert):
        return AcceptedReply(request=1, id="a", duplicate=False, receivers=0, at=5)
    return AcknowledgedReply(request=1, acknowledgement=Acknowledgement(user="bob", at=6), duplicate=False)


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("kind", [RaiseAlert, AcknowledgeRequest])
async def test_a_successor_is_told_once_of_what_was_accepted(kind: type[Message], is_late: bool) -> None:
    link = Link()
    requests = AlertRequests(link, Metrics(), None)  # type: ignore[arg-type]

    def change() -> None:
        link.epoch = 6
        requests.on_joined(0)

    if is_late:
        link.meanwhile = change
    if kind is RaiseAlert:
        await requests.raise_alert(ALERT)
    else:
        await requests.acknowledge(ROW, "bob", None)
    if not is_late:
        assert link.sent == []
        change()
    (told,) = link.sent
    assert isinstance(told, kind)
    assert told.accepted_at == 5
    await asyncio.sleep(0)  # the reply comes
    requests.on_joined(0)
    assert len(link.sent) == 1
    link.epoch = 7
    requests.on_joined(0)
    assert link.sent == [told, told], "and the one after that"
