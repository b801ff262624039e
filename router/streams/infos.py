"""What cameras say of themselves (`info`), bounded in bytes over all streams. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from watchout.common.toolbox.largest import Largest
from watchout.router.streams.stream import RouterStream

#: Most bytes of the infos of all streams, as JSON: a reply with every stream has room for them.
MAX_BYTES: Final = 4 << 20


class StreamInfos:
    """The infos of all streams with a publisher; part of `RouterStreamTable`.

    Past the bound, the oldest info of the user who has the most bytes is dropped: its stream goes on without one.

    Args:
        max_bytes: Most bytes in total.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        #: By user and stream, the oldest first.
        self._of_user: dict[str, OrderedDict[str, RouterStream]] = {}
        self._user_of: dict[str, str] = {}
        self._sizes: Largest[str] = Largest()

    @property
    def size_bytes(self) -> int:
        """Bytes of all infos."""
        return self._sizes.total

    def put(self, stream: RouterStream, info: str) -> None:
        """Replace the info of a stream of a known user; "": it has none any more."""
        self.remove(stream)
        if not info or stream.user is None:
            return
        stream.info = info
        self._user_of[stream.id] = stream.user
        self._of_user.setdefault(stream.user, OrderedDict())[stream.id] = stream
        self._sizes.add(stream.user, len(info.encode()))
        while self._sizes.total > self._max_bytes and (most := self._sizes.largest()) is not None:
            self.remove(next(iter(self._of_user[most].values())))

    def remove(self, stream: RouterStream) -> None:
        """Forget the info of a stream, if it has one."""
        user = self._user_of.pop(stream.id, None)
        if user is None:
            return
        self._sizes.add(user, -len(stream.info.encode()))
        stream.info = ""
        del self._of_user[user][stream.id]
        if not self._of_user[user]:
            del self._of_user[user]
