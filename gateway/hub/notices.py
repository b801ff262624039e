"""Notices to publishers: the demand for their frames, and errors about frames that could not be used. Pure."""

from __future__ import annotations

from typing import Final

from watchout.common.bus.messages import BadFrame, ErrorForPublisher
from watchout.common.errors import ErrorCode
from watchout.common.media.frames import Frame, name_fault, named_frame
from watchout.gateway import wire
from watchout.gateway.hub.demand import Wanted, combine
from watchout.gateway.hub.streams import Publication, StreamTable

#: Longest reason in a `BadFrame`, in characters.
MAX_REASON_CHARS: Final = 500


class PublisherNotices:
    """Sends publishers of this gateway ``demand`` messages and errors about unusable frames, each error once.

    Part of `Hub`. For a publisher on another gateway the error is returned as a `BadFrame` for the router.

    Args:
        table: The streams of this gateway.
        unlimited_fps: Rate that is sent as the demand of viewers that want every frame.
    """

    def __init__(self, table: StreamTable, *, unlimited_fps: float) -> None:
        self._table = table
        self._unlimited_fps = unlimited_fps
        #: Streams whose demand may have changed.
        self._changed: set[str] = set()

    def mark_demand(self, stream_id: str) -> None:
        """Record that the demand for a stream may have changed; `send_demand` follows."""
        self._changed.add(stream_id)

    def send_demand(self, now: float, now_ms: int) -> None:
        """Send each changed demand to its publisher, if it asked for it and `Demand` permits. Called every second."""
        changed, self._changed = self._changed, set()
        for stream_id in changed:
            publication = self._table.publications.get(stream_id)
            if publication is None or publication.demand is None:
                continue
            wanted = self._wanted(publication)
            if publication.demand.take(wanted, now):
                publication.publisher.send_message(wire.demand(stream_id, wanted.viewers, wanted.fps, now_ms))
            elif not publication.demand.is_current(wanted):
                self._changed.add(stream_id)

    def on_undecodable(self, frame: Frame, reason: str, now_ms: int) -> BadFrame | None:
        """Handle that a viewer here needs the picture of `frame` and it cannot be decoded.

        The publisher is sent an error, unless it declared its frames opaque. Returns what to send to the router when
        the publisher is on another gateway, else None.
        """
        if frame.declared_opaque:
            return None
        return self._report(frame.stream_id, frame.term, frame.frame_id, reason, now_ms)

    def on_picture_requested(self, stream_id: str, now_ms: int) -> BadFrame | None:
        """Handle a request for the newest picture of a stream: if the last frame is no picture, the publisher is told.

        Returns as `on_undecodable`.
        """
        stream = self._table.streams.get(stream_id)
        if stream is None or stream.last_undecodable is None:
            return None
        return self._report(stream_id, *stream.last_undecodable, now_ms)

    def on_frame_refused(self, message: ErrorForPublisher, now_ms: int) -> None:
        """Handle the router's message that another process could not use a frame of a publisher here."""
        publication = self._table.publications.get(message.stream)
        if publication is not None:
            frame_id = named_frame(message.message)
            self._send_error(publication, ErrorCode(message.code), message.message, frame_id, now_ms)

    def _report(self, stream_id: str, term: int, frame_id: int, reason: str, now_ms: int) -> BadFrame | None:
        publication = self._table.publications.get(stream_id)
        if publication is not None:
            text = name_fault(frame_id, reason)
            self._send_error(publication, ErrorCode.INVALID_MESSAGE, text, frame_id, now_ms)
            return None
        stream = self._table.streams.get(stream_id)
        if stream is not None:
            if stream.undecodable_reported_term == term:
                return None
            stream.undecodable_reported_term = term
        return BadFrame(stream=stream_id, frame_id=frame_id, reason=name_fault(frame_id, reason)[:MAX_REASON_CHARS])

    @staticmethod
    def _send_error(publication: Publication, code: ErrorCode, text: str, frame_id: int | None, now_ms: int) -> None:
        if not publication.undecodable_reported:
            publication.undecodable_reported = True
            request_id = None if frame_id is None else publication.request_ids.get(frame_id)
            subject = wire.Subject(request_id, publication.stream)
            publication.publisher.send_message(wire.error(code, text, now_ms, subject))

    def _wanted(self, publication: Publication) -> Wanted:
        stream = self._table.streams[publication.stream]
        rates = [*stream.rates, *(receiver.max_fps for receiver in publication.receivers)]
        if publication.bus_sampler is not None:
            rates.append(publication.bus_fps)
        return combine(len(stream.video) + publication.viewers_elsewhere, rates, self._unlimited_fps)
