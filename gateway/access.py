"""Who may view a stream: one small policy, asked at subscribe, at each HTTP path, and when an owner changes. Pure.

A further policy is a further branch here, with what it needs in `Identity`. The router is not asked: rights come
from the session store, which only the gateway knows.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.auth import Identity
from gateway.hub import Viewer
from gateway.lanes import Subscription


def may_view(policy: str, viewer: Identity, owner: str | None) -> bool:
    """Whether `viewer` may see a stream of `owner`; a stream without an owner may be waited for by everybody.

    `policy` is the setting `STREAM_ACCESS`.
    """
    return owner is None or policy == "authenticated" or viewer.user_id == owner


def without_right(
    policy: str, viewers: Iterable[tuple[Subscription, Viewer]], owner: str | None
) -> list[tuple[Subscription, Viewer]]:
    """Of the viewers of a stream, those who may not watch it now that it belongs to `owner`."""
    return [
        (subscription, viewer) for subscription, viewer in viewers if not may_view(policy, subscription.identity, owner)
    ]
