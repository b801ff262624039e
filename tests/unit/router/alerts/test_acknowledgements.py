"""Acknowledgements in the router: the first counts, who is told, what a gateway that was away gets, and bounds."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.common.alerts.model import Alert
from watchout.common.bus.messages import (
    AcknowledgedReply,
    AcknowledgeRequest,
    AlertNotification,
    Message,
    RaiseAlert,
    RefusedReply,
)
from watchout.common.metrics import Metrics
from watchout.router.alerts.delivery import AlertDelivery
from watchout.router.alerts.ids import AlertIds
from watchout.router.alerts.log import AlertLog
from watchout.router.alerts.recent import RecentAlerts
from watchout.router.alerts.replay import AlertReplay

NEAR, FAR = b"n" * 8, b"f" * 8


def alert(name: str = "a1") -> Alert:
    return Alert(id=name, stream_id="cam", severity="high", message="m", timestamp=1)


class Delivering:
    """An `AlertDelivery` with two gateways that want the alerts of every stream, and what it sends."""

    def __init__(self, **recent: Any) -> None:
        self.sent: list[tuple[bytes, Message]] = []
        self.log = AlertLog()
        self.recent = RecentAlerts(**{"limit": 10, "minutes": 10, **recent})
        self.offered: list[str] = []
        self.replay = AlertReplay(self.log)
        parts: dict[str, Any] = {
            "streams": SimpleNamespace(
                owner=lambda _: "ann", alert_receivers=lambda _: ([NEAR, FAR], 2), finish=lambda _: []
            ),
            "outbox": SimpleNamespace(send=lambda member, body: self.sent.append((member, body)), send_all=list),
            "webhook": SimpleNamespace(offer=lambda event: self.offered.append(event.webhook_id)),
        }
        self.delivery = AlertDelivery(
            epoch=7, metrics=Metrics(), ids=AlertIds(), recent=self.recent, log=self.log, replay=self.replay, **parts
        )

    def raise_alert(self, name: str = "a1") -> None:
        self.delivery.accept(NEAR, RaiseAlert(request=1, alert=alert(name)), 0.0, 1000)
        self.sent.clear()

    def acknowledge(self, user: str, name: str = "a1", now_ms: int = 2000, **fields: Any) -> list[tuple[bytes, Any]]:
        request = AcknowledgeRequest(request=2, alert=alert(name), user=user, **fields)
        self.delivery.acknowledge(NEAR, request, 0.0, now_ms)
        sent, self.sent = self.sent, []
        return sent


def test_the_first_acknowledgement_counts_and_is_told_once() -> None:
    made = Delivering()
    made.raise_alert()
    told = made.acknowledge("bob", note="seen")
    given = Acknowledgement(user="bob", at=2000, note="seen")
    note = AlertNotification(alert=alert(), number=2, at=1000, acknowledgement=given)
    assert told == [(NEAR, note), (FAR, note), (NEAR, AcknowledgedReply(request=2, acknowledgement=given))]
    again = made.acknowledge("eve", now_ms=3000)
    assert again == [(NEAR, AcknowledgedReply(request=2, acknowledgement=given, duplicate=True))]
    assert len(made.offered) == 2


def test_an_alert_that_is_not_kept_any_more_is_refused() -> None:
    made = Delivering(limit=1)
    made.raise_alert("a1")
    made.raise_alert("a2")
    ((member, reply),) = made.acknowledge("bob", "a1")
    assert member == NEAR
    assert isinstance(reply, RefusedReply)
    assert (reply.code, "a1" in reply.message) == ("INVALID_MESSAGE", True)


def test_a_router_that_restarted_takes_the_alert_from_the_request_with_its_former_owner() -> None:
    made = Delivering()
    told = made.acknowledge("bob", owner="eve", term=5, accepted_at=500, at=900)
    bodies = [body for member, body in told if member == FAR]
    assert [(body.number, body.at, body.acknowledgement and body.acknowledgement.at) for body in bodies] == [
        (1, 500, None),
        (2, 500, 900),
    ]
    assert bodies[1].repeated
    ((_, owner, _, at, _, given),) = made.recent.recent("cam", since=0, limit=9)
    assert (owner, at, given) == ("eve", 500, Acknowledgement(user="bob", at=900))
    # The one who raised it sends it again as well: that has no further effect, in whatever order they come.
    made.raise_alert()
    assert made.recent.of_id("a1")[0][1] == "eve"


async def test_a_gateway_that_was_away_gets_alert_and_acknowledgement_in_order() -> None:
    made = Delivering()
    made.raise_alert("a1")
    made.replay.begin(FAR)
    told = made.acknowledge("bob")
    assert [member for member, body in told if isinstance(body, AlertNotification)] == [NEAR], "FAR is behind"
    made.raise_alert("a2")
    made.delivery.resume(FAR, alerts_epoch=7, last_alert=1)
    await asyncio.sleep(0)
    notes = [body for member, body in made.sent if member == FAR and isinstance(body, AlertNotification)]
    assert [(note.number, note.alert.id, note.acknowledgement is not None, note.repeated) for note in notes] == [
        (2, "a1", True, True),
        (3, "a2", False, False),
    ]


def test_notes_count_for_the_bounds_of_recent_alerts() -> None:
    made = Delivering(limit=1000, max_bytes=40_000)
    for number in range(8):
        made.raise_alert(f"a{number}")
        made.acknowledge("bob", f"a{number}", note="x" * 1000)
        assert made.recent.size_bytes <= 40_000
    kept = made.recent.recent("cam", since=0, limit=100)
    assert len(kept) < 8
    assert kept[-1][0] == "a7"


def test_older_alerts_are_found_when_they_were_acknowledged_since() -> None:
    made = Delivering()
    made.raise_alert("a1")
    made.raise_alert("a2")
    made.acknowledge("bob", "a1", now_ms=5000)
    assert made.recent.recent("cam", since=4000, limit=9) == []
    assert [row[0] for row in made.recent.recent("cam", since=4000, limit=9, or_acknowledged=True)] == ["a1"]
    assert made.recent.recent("cam", since=5001, limit=9, or_acknowledged=True) == []
