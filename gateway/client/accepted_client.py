"""What a client's protocol begins with: what is known of a client when its upgrade is accepted. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from watchout.common.settings import Settings
from watchout.gateway.authorization import Authorization
from watchout.gateway.model import IgnoredCookie, SocketPath
from watchout.gateway.stream_ids import StreamIds
from watchout.identity import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedClient:
    """A client whose upgrade is accepted; made by `accept_upgrade`, argument of `ClientProtocol` and its base classes.

    Args:
        path: The path of the upgrade, which decides whether the client may publish or subscribe.
        settings: The gateway's settings: rates, limits, time-outs.
        authorization: The policy that decides what an identity may do.
        now: The loop's time in seconds.
        stream_ids: Makes the ids of streams that are registered without one.
        identity: Who signed in with the upgrade request; None: an `auth` message is needed.
        ignored_cookie: Why the session cookie of the upgrade request was not used; None when there was none.
    """

    path: SocketPath
    settings: Settings
    authorization: Authorization
    now: float
    stream_ids: StreamIds
    identity: Identity | None = None
    ignored_cookie: IgnoredCookie | None = None
