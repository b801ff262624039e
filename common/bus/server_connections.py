"""Whether the connections of this process to the servers that carry the bus stand, for its metrics."""

from __future__ import annotations

import weakref
from typing import Final, Protocol


class ServerConnection(Protocol):
    """A connection to a server of `WATCHOUT_BUS`, as `common.bus.nats.connection` makes it."""

    @property
    def connected(self) -> bool:
        """Whether messages go out now."""

    @property
    def is_closed(self) -> bool:
        """Whether nobody needs it any more."""


_connections: Final[weakref.WeakSet[ServerConnection]] = weakref.WeakSet()


def add(connection: ServerConnection) -> None:
    """Watch a connection until it is closed."""
    _connections.add(connection)


def all_stand() -> bool | None:
    """Return whether all connections stand; None: this process has none."""
    standing = [each.connected for each in _connections if not each.is_closed]
    return all(standing) if standing else None
