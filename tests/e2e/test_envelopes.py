"""Frames in the JSON of many encoders, however the WebSocket carries them: never parsed, and unchanged at the viewers.

The rule is in `tests/unit/gateway/test_fastpath.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.kit.clients import CLOSE, CONTINUATION, JPEG, PING, TEXT, base64_of, web_socket_frame
from watchout.gateway import fastpath, wire
from watchout.gateway.client import message_assembler

PICTURE = JPEG + b"\xff\xfb\xf0" * 700  # has + and / in base64
FRAME = {"type": "video-frame", "streamId": "cam", "data": base64_of(PICTURE), "timestamp": 1_729_943_200_123}
FORMS = {
    "compact": json.dumps(FRAME, separators=(",", ":")),
    "with spaces": json.dumps(FRAME),
    "in another order": json.dumps(dict(reversed(FRAME.items()))),
    "with three more fields": json.dumps({**FRAME, "width": 640, "height": 480, "rotation": 90}),
    "with escaped slashes": json.dumps(FRAME).replace("/", "\\/"),
    "with a prefix and escaped slashes": json.dumps(
        {**FRAME, "data": f"data:image/jpeg;base64,{FRAME['data']}"}
    ).replace("/", "\\/"),
    "with an escaped plus": json.dumps(FRAME).replace("+", "\\u002B"),
}


def whole(message: bytes) -> bytes:
    return web_socket_frame(TEXT, message)


def in_fragments(message: bytes) -> bytes:
    third = len(message) // 3
    return (
        web_socket_frame(TEXT, message[:third], fin=False)
        + web_socket_frame(CONTINUATION, message[third : 2 * third], fin=False)
        + web_socket_frame(PING, b"between")
        + web_socket_frame(CONTINUATION, message[2 * third :])
    )


def behind_a_ping(message: bytes) -> bytes:
    return web_socket_frame(PING, b"before") + web_socket_frame(TEXT, message)


@pytest.mark.parametrize("way", [whole, in_fragments, behind_a_ping])
async def test_a_frame_in_any_spelling_is_not_parsed_and_reaches_viewers_unchanged(
    one_process, clients, monkeypatch: pytest.MonkeyPatch, way: Callable[[bytes], bytes]
) -> None:
    if fastpath.take is None:
        pytest.skip("gateway._fastpath was not built: there was no compiler at installation")
    token, parsed, parse = one_process.token(), [], wire.parse_text

    def parse_and_tell(data: bytes) -> wire.AnyClientMessage:
        parsed.append(data)
        return parse(data)

    as_json, camera = await clients.raw(one_process.url), await clients.raw(one_process.url)
    as_binary = await clients.viewer(one_process.url, token)
    await as_binary.subscribe("cam", format="binary")
    for raw, path, wish in (
        (as_json, "subscribe", {"type": "subscribe", "streamId": "cam", "consumes": ["video-frame"]}),
        (camera, "register", {"type": "register", "streamId": "cam", "produces": ["video-frame"]}),
    ):
        await raw.upgrade(f"/streams/{path}?token={token}")
        await raw.send(web_socket_frame(TEXT, json.dumps(wish).encode()))
        await raw.json("success")
    monkeypatch.setattr(wire, "parse_text", parse_and_tell)
    for number, (form, sent) in enumerate(FORMS.items(), 1):
        await camera.send(way(sent.encode()))
        frame = await as_binary.frame()
        assert (frame["frameId"], frame["picture"], frame["timestamp"]) == (number, PICTURE, FRAME["timestamp"]), form
        while b"video-frame" not in (payload := (await as_json.frame()).payload):
            pass
        as_sent = sent[sent.index('"data": ' if '"data": ' in sent else '"data":') :].removeprefix('"data":').lstrip()
        assert as_sent[: as_sent.index('"', 1) + 1].encode() in payload, form
        got = json.loads(payload)
        del got["frameId"]
        assert got == json.loads(sent), form
    assert parsed == []


@pytest.mark.parametrize("over", [0, 1])
async def test_all_fragments_of_a_message_count_against_their_bound(
    one_process, clients, monkeypatch: pytest.MonkeyPatch, over: int
) -> None:
    monkeypatch.setattr(message_assembler, "MAX_FRAGMENTS", 20)
    camera = await clients.raw(one_process.url)
    await camera.upgrade(f"/streams/register?token={one_process.token()}")
    parts = [b'{"type":', *[b" "] * (18 + over), b'"ping"}']
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        await camera.send(web_socket_frame(CONTINUATION if number else TEXT, part, fin=last))
    answer = await camera.frame()
    if over:
        assert (answer.opcode, int.from_bytes(answer.payload[:2], "big")) == (CLOSE, 1008)
    else:
        assert json.loads(answer.payload)["type"] == "pong"
