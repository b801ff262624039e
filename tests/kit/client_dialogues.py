"""Dialogues with a client's protocol that several tests begin with: a registered publisher, a subscribed viewer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.kit.playbook import (
    Playbook,
    camera,
    owner_is,
    router_grants,
    says,
    sends_binary,
    sends_text,
    success,
    viewer,
    watches,
)
from watchout.gateway.client.commands import ClaimStream, FindStream, PublicationOptions, Publish, PublishFrame
from watchout.gateway.client.first_message import MAX_AUTH_BYTES
from watchout.gateway.model import Owner
from watchout.identity import Identity

JPEG = b"\xff\xd8\xff\xe0picture"
PROMOTED = Identity("ann", "session-of-ann", roles=frozenset({"admin"}))
AUTHENTICATED = success("Authentication successful")


def registered(**fields: Any) -> Playbook:
    """A camera of ann that has registered the stream "door" to produce frames."""
    return (
        Playbook(camera())
        >> says(type="register", streamId="door", **{"produces": ["video-frame"], **fields})
        << ClaimStream("door", Owner("ann"), producing="video-frame" in fields.get("produces", ["video-frame"]))
        >> router_grants(term=7, first_frame_id=1)
        << success("Registration successful. Stream ID: door", streamId="door")
        << Publish("door", Owner("ann"), 7, 1, PublicationOptions(**publishing(fields)))
    )


def publishing(fields: dict[str, Any]) -> dict[str, bool]:
    return {
        "producing": "video-frame" in fields.get("produces", ["video-frame"]),
        "wants_alerts": "alert" in fields.get("consumes", []),
        "wants_demand": "demand" in fields.get("consumes", []),
        "wants_status": bool(fields.get("consumes")),
    }


def subscribed(stream: str = "door", **fields: Any) -> Playbook:
    """A viewer of ann that has subscribed to her stream."""
    return subscribe(Playbook(viewer()), stream, **fields)


def subscribe(talk: Playbook, stream: str, **fields: Any) -> Playbook:
    return (
        talk
        >> says(type="subscribe", streamId=stream, **{"consumes": ["video-frame"], **fields})
        << FindStream(stream)
        >> owner_is("ann", "streaming")
        << success("Subscription successful", streamId=stream)
        << watches(stream, status="streaming", owner="ann")
    )


def frame_head(stream: str = "", *, frame_id: int = 0, timestamp: int = 5, codec: int = 1) -> bytes:
    head = b"\x57\x01\x01\x00" + frame_id.to_bytes(4, "big") + timestamp.to_bytes(8, "big")
    return head + bytes([codec, len(stream)]) + stream.encode()


@dataclass(frozen=True)
class TextFrame:
    """Equal to the command that sends this text."""

    token: bytes
    timestamp: int

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PublishFrame) or other.text is None or (other.picture, other.codec) != (None, None):
            return False
        return (other.text, other.timestamp) == (self.token, self.timestamp)

    __hash__ = None  # type: ignore[assignment]


def text_frame(token: bytes, timestamp: int) -> TextFrame:
    return TextFrame(token, timestamp)


#: Messages that are refused before authentication, while the socket stays open.
BEFORE = [
    says(type="register"),
    says(type="subscribe", streamId="door"),
    says(type="video-frame", data="AAAA"),
    says(type="unsubscribe", streamId="door"),
    says(type="ack", streamId="door", frameId=1),
    says(type="alert", severity="low", message="m"),
    says(type="nope"),
    says(type=5),
    says(),
    sends_text(b"hello"),
    sends_text(b""),
    sends_text(b"[]"),
    sends_text(b"[" * 10_000),
    sends_text(b'{"type":"auth","token":"' + b"t" * MAX_AUTH_BYTES + b'"}'),
    sends_binary(b""),
    sends_binary(frame_head() + JPEG),
]
