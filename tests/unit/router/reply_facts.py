"""The state of a router from which `recorded_replies.json` was made: members, streams, alerts, a picture."""

from __future__ import annotations

import json

from watchout.common.alerts.acknowledgement import Acknowledgement
from watchout.common.alerts.model import Alert
from watchout.common.bus.messages import (
    Claim,
    CoverageReport,
    Envelope,
    Hello,
    Interest,
    MemberHeartbeat,
    Message,
    PublicationState,
    Release,
    StreamReport,
)
from watchout.common.media.held_frames import HeldFrames
from watchout.common.toolbox.globs import Globs
from watchout.router.alerts.recent import RecentAlerts
from watchout.router.members import Members
from watchout.router.streams.registry import Streams
from watchout.router.streams.stream import BridgeRecord

EPOCH = 1_729_943_200_000
NOW = 1000.5
NOW_MS = 1_729_943_300_000
ROUTER_METRICS: dict[str, float] = {
    "uptime_seconds": 12.5, "members": 4, "descriptors_open": 31, "descriptors_limit": 1024, "alerts_total": 2.0,
}  # fmt: skip
GATEWAY, OTHER, BRIDGE, CTL, OLD = (bytes([number]) * 8 for number in range(1, 6))


def members() -> Members:
    found = Members(EPOCH)
    hellos = (
        (GATEWAY, Hello(kind="gateway", name="gateway.1", pid=11, release="1.2.3", settings={"WATCHOUT_PORT": "3000"})),
        (OTHER, Hello(kind="gateway", name="gateway.2", pid=12)),
        (BRIDGE, Hello(kind="mlbridge", name="mlbridge", pid=13, group="people", max_fps=2.0, release="1.2.3")),
        (CTL, Hello(kind="ctl", name="ctl", pid=14)),
    )
    for number, (member, hello) in enumerate(hellos):
        found.receive(member, Envelope(0, 0, hello), NOW - 10 + number)
    bodies: tuple[tuple[bytes, Message], ...] = (
        (GATEWAY, MemberHeartbeat(metrics={"sockets": 3.0, "descriptors_open": 20.0, "descriptors_limit": 1024.0,
                                     "connections_limit": 900.0})),
        (OTHER, MemberHeartbeat(metrics={"sockets": 4.0})),
        (BRIDGE, CoverageReport(rows=[("cam-1", 0.75)])),
    )  # fmt: skip
    for member, body in bodies:
        known = found.get(member)
        assert known is not None
        match body:
            case MemberHeartbeat(metrics=dict(metrics)):
                known.metrics = metrics
            case CoverageReport(rows=rows):
                known.coverage = dict(rows)
    return found


def streams() -> Streams:
    found = Streams(7, max_streams=100, reserved_s=600)
    found.add_bridge(BridgeRecord(BRIDGE, "people", 2.0, Globs(())))
    for member, stream, user, producing in ((GATEWAY, "cam-1", "ann", True), (OTHER, "cam-2", "bob", False)):
        granted = found.claim(
            member, Claim(request=1, stream=stream, user=user, producing=producing, organizations=("org",)), NOW, NOW_MS
        )[-1].body
        found.set_publication(
            member,
            PublicationState(stream=stream, user=user, term=granted.term, status="streaming" if producing else "online",  # type: ignore[union-attr]
                 producing=producing, wants_alerts=True, frame_id=9 if producing else 0, total_frames=9, fps=29.974,
                 started_at=NOW_MS - 61_500, last_frame_at=NOW_MS - 40 if producing else None, organizations=("org",)),
            NOW_MS,
        )  # fmt: skip
    found.set_interest(OTHER, Interest(stream="cam-1", viewers=2, alert_viewers=1), NOW, NOW_MS)
    found.report(OTHER, StreamReport(dropped=[("cam-1", "slow", 3), ("cam-1", "rate", 5)]))
    granted = found.claim(GATEWAY, Claim(request=2, stream="cam-3", user="ann"), NOW, NOW_MS)[-1].body
    found.release(GATEWAY, Release(stream="cam-3", term=granted.term), NOW - 40, NOW_MS)  # type: ignore[union-attr]
    return found


def book() -> RecentAlerts:
    found = RecentAlerts(limit=10, minutes=10)
    for number, (stream, owner, term) in enumerate((("cam-1", "ann", 5), ("cam-9", None, 0))):
        text = json.dumps(
            {"streamId": stream, "frameId": 9, "timestamp": NOW_MS - 100, "severity": "high", "message": "fire",
             "id": "a1"}
        )  # fmt: skip
        found.accept(Alert.from_json(text.encode()), NOW_MS - 50 + number, owner=owner, term=term)
    found.acknowledge("cam-1", "a1", Acknowledgement(user="bob", at=NOW_MS - 10, note="seen"))
    return found


def pictures() -> HeldFrames[bytes]:
    found: HeldFrames[bytes] = HeldFrames(1 << 20, max_age_s=600)
    found.put("cam-1", (5, 9), b"picture", 7, NOW)
    return found
