"""Responses with the picture of one frame, and 304 for a client that has it already."""

from __future__ import annotations

from aiohttp import web

from watchout.common.media.frames import Frame
from watchout.gateway.http.conditional import entity_tag, not_modified

#: Only the client itself may store a picture, and must ask again before each use: permissions may change.
_CACHE_CONTROL = "private, no-cache"


def not_modified_response(request: web.Request, tag: str) -> web.Response | None:
    """Return 304 when the client has the picture with this entity tag, else None.

    The caller judges the client's permission first: also 304 tells that the picture exists.
    """
    if not not_modified(request.headers.getall("If-None-Match", ()), tag):
        return None
    return web.Response(status=304, headers={"ETag": tag, "Cache-Control": _CACHE_CONTROL})


def picture_response(request: web.Request, frame: Frame) -> web.Response:
    """Return the picture of a frame, or 304 when the client has it. The caller judges the permission first.

    Raises `FrameFault` when the frame is no picture.
    """
    picture, codec = frame.picture, frame.codec
    tag = entity_tag(frame.stream_id, frame.term, frame.frame_id)
    return not_modified_response(request, tag) or web.Response(
        body=picture,
        headers={
            "Content-Type": codec.content_type,
            "X-Content-Type-Options": "nosniff",
            "ETag": tag,
            "Cache-Control": _CACHE_CONTROL,
            "X-Stream-Id": frame.stream_id,
            "X-Frame-Id": str(frame.frame_id),
            "X-Frame-Time": str(frame.timestamp),
        },
    )
