"""A client of watchout for Python: publishes and views streams, reconnects, recovers alerts, and drops old frames.

asyncio: `connect`. Plain loops: `frames` and `Camera`. docs/clients.md has examples.
"""

from watchout.client.aio import Client, Subscription, connect
from watchout.client.async_camera import AsyncCamera
from watchout.client.blocking import Camera, Frames, frames
from watchout.client.commands import ConnectionPhase, PhaseChanged
from watchout.client.errors import (
    ClientClosed,
    Disconnected,
    FrameTooLarge,
    NoAnswer,
    NotAGateway,
    NoToken,
    Refused,
    SessionEnded,
    TakenOver,
    TokenRefused,
    Unauthorized,
    Unreachable,
    WatchoutClientError,
)
from watchout.client.events import Acknowledged, Alert, Demand, Event, Frame, Problem, Recovery, Status
from watchout.common.media.arrays import MissingExtra

__all__ = [
    "Acknowledged",
    "Alert",
    "AsyncCamera",
    "Camera",
    "Client",
    "ClientClosed",
    "ConnectionPhase",
    "Demand",
    "Disconnected",
    "Event",
    "Frame",
    "FrameTooLarge",
    "Frames",
    "MissingExtra",
    "NoAnswer",
    "NoToken",
    "NotAGateway",
    "PhaseChanged",
    "Problem",
    "Recovery",
    "Refused",
    "SessionEnded",
    "Status",
    "Subscription",
    "TakenOver",
    "TokenRefused",
    "Unauthorized",
    "Unreachable",
    "WatchoutClientError",
    "connect",
    "frames",
]
