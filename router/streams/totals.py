"""Sums over all streams of one router, kept as streams change, so that a question about them walks over none. Pure."""

from __future__ import annotations

from watchout.common.bus.reply_records import Totals
from watchout.router.streams.stream import Counted, RouterStream


class StreamTotals:
    """The sums; owned by `RouterStreamTable`. Whoever changes a stream's publisher or interest calls `update` after it.

    A stream remembers what of it is in the sums, so that a call too many is harmless.
    """

    def __init__(self) -> None:
        self._producers = self._video = self._alerts = 0

    def update(self, stream: RouterStream) -> None:
        """Take what a stream adds to the sums now in the place of what it added before.

        Args:
            stream: The stream; one that is about to be forgotten has no publisher and no interest.
        """
        before, now = stream.counted, _counted(stream)
        if now != before:
            stream.counted = now
            self._producers += now[0] - before[0]
            self._video += now[1] - before[1]
            self._alerts += now[2] - before[2]

    def totals(self, *, connections: int) -> Totals:
        """Return the sums.

        Args:
            connections: Authenticated sockets, which are passed on.
        """
        return Totals(
            producers=self._producers,
            video_consumers=self._video,
            alert_consumers=self._alerts,
            connections=connections,
        )


def _counted(stream: RouterStream) -> Counted:
    video = alerts = 0
    for interest in stream.interests.values():
        video += interest.viewers
        alerts += interest.alert_viewers
    if stream.gateway is None:
        return 0, video, alerts
    return int(stream.producing), video, alerts + stream.wants_alerts
