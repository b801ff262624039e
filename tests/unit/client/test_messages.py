"""What comes and what goes: messages, addresses, light imports, the OpenCV extra."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.client.async_camera import encode_frame
from watchout.client.events import Frame, ProtocolFault, read_alert, read_message
from watchout.common.media import arrays
from watchout.common.media.arrays import MissingExtra
from watchout.common.media.frames import Frame as WireFrame
from watchout.common.media.frames import parse_binary
from watchout.common.toolbox.gateway_address import gateway_url, http_url


@given(st.from_regex(r"[A-Za-z0-9_.:-]{1,128}", fullmatch=True), st.integers(1, 2**53 - 1), st.binary(min_size=1))
def test_both_encodings_of_a_cameras_frame_say_the_same(stream: str, timestamp: int, picture: bytes) -> None:
    picture = b"\xff\xd8\xff" + picture
    binary = parse_binary(encode_frame(stream, timestamp, picture, binary=True))
    text = json.loads(encode_frame(stream, timestamp, picture, binary=False))
    assert (binary.stream_id, binary.timestamp, binary.frame_id) == (stream, timestamp, 0)
    assert binary.picture == picture
    assert text.keys() == {"type", "streamId", "timestamp", "data"}
    assert (text["type"], text["streamId"], text["timestamp"]) == ("video-frame", stream, timestamp)


def test_a_frame_is_read_in_both_formats() -> None:
    wire = WireFrame("cam", 7, 1000, picture=b"\xff\xd8\xff\x01")
    for data in (wire.to_json(), wire.to_binary()):
        frame = read_message(data)
        assert isinstance(frame, Frame)
        assert (frame.stream_id, frame.frame_id, frame.timestamp) == ("cam", 7, 1000)
        assert (frame.picture, frame.content_type) == (b"\xff\xd8\xff\x01", "image/jpeg")
    more = json.loads(wire.to_json()) | {"rotation": 90}
    assert read_message(json.dumps(more)).fields == {"rotation": 90}  # type: ignore[union-attr]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_fault(data: bytes) -> None:
    try:
        message = read_message(data)
    except ProtocolFault:
        return
    assert isinstance(message, Frame | dict)


def test_an_alert_with_odd_fields_is_still_an_alert() -> None:
    alert = read_alert({"type": "alert", "id": 5, "metadata": [1], "timestamp": "x", "frameId": "y"})
    assert (alert.id, alert.metadata, alert.timestamp, alert.frame_id) == ("5", {}, 0, None)


@pytest.mark.parametrize(
    ("given_url", "url"),
    [
        ("http://localhost:3000", "ws://localhost:3000"),
        ("https://example.com/", "wss://example.com"),
        ("wss://example.com/live/streams/subscribe", "wss://example.com/live"),
        ("localhost:3000", "ws://localhost:3000"),
        ("ws://[::1]:3000/streams/register", "ws://[::1]:3000"),
    ],
)
def test_an_address_is_taken_as_people_write_it(given_url: str, url: str) -> None:
    assert gateway_url(given_url) == url
    assert http_url(url) == url.replace("ws", "http", 1)


@pytest.mark.parametrize(
    "wrong", ["", "ftp://x", "ws://", "ws://x:0", "ws://x:99999", "ws://x?token=abc", "http://a:b@c"]
)
def test_what_is_no_address_is_told_without_secrets(wrong: str) -> None:
    with pytest.raises(ValueError, match="expected ws://") as fault:
        gateway_url(wrong)
    assert "a:b" not in str(fault.value)


@pytest.mark.e2e
def test_importing_the_client_loads_no_server_and_no_heavy_package() -> None:
    code = (
        "import sys, watchout.client; "
        "print(sorted({name for name in sys.modules if name.split('.')[0] in "
        "('zmq', 'aiohttp', 'uvloop', 'asyncpg', 'cv2', 'numpy', 'structlog', 'prometheus_client', 'rich', 'click')} | "
        "{name for name in sys.modules if name.startswith(('watchout.gateway', 'watchout.router', 'watchout.mlbridge', "
        "'watchout.identity', 'watchout.ctl', 'watchout.common.settings', 'watchout.common.bus.zeromq'))}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_without_opencv_the_error_has_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_imported", [])
    monkeypatch.setitem(sys.modules, "cv2", None)
    frame = Frame(WireFrame("cam", 1, 1, picture=b"\xff\xd8\xff"))
    with pytest.raises(MissingExtra, match=r"pip install 'watchout\[opencv\]'"):
        _ = frame.image
    assert issubclass(MissingExtra, ImportError)


def test_arrays_become_pictures_and_back() -> None:
    cv2, np = pytest.importorskip("cv2"), pytest.importorskip("numpy")
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :, 2] = 255  # red, as BGR
    frame = Frame(WireFrame("cam", 1, 1, picture=arrays.encode(image, 90)))
    assert frame.image.shape == (48, 64, 3)
    assert frame.image[24, 32].tolist()[2] > 240
    assert frame.image is frame.image
    with pytest.raises(ValueError, match="cannot be decoded"):
        arrays.decode(b"\xff\xd8\xff")
    for wrong in (np.zeros((0, 0, 3), np.uint8), np.zeros((4, 4, 7), np.uint8), "text", None):
        with pytest.raises(ValueError, match=r"not a picture|cannot be encoded"):
            arrays.encode(wrong, 90)
    assert cv2 is not None
