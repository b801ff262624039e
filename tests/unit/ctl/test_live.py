from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.cameras import FORMS, TcpCamera, camera, head_of, http_answer, mjpeg, rtsp
from tests.kit.ctl_command import TINY_JPEG
from watchout.ctl.environment import Failure
from watchout.ctl.sources import live
from watchout.ctl.sources.open import open_source
from watchout.ctl.sources.pump import Notice

pytest.importorskip("av")

AUDIO_ONLY = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 0 RTP/AVP 0\r\na=control:track1\r\na=rtpmap:0 PCMU/8000\r\n"
)


@pytest.fixture(autouse=True)
def soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """No camera is silent because the machine is slow; a test of silence is `impatient`."""
    monkeypatch.setattr(live, "SILENT_S", 30.0)
    monkeypatch.setattr(live, "backoff_s", lambda attempt, **_: 0.01 * (attempt + 1))


@pytest.fixture
def impatient(soon_again: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SILENT_S", 1.5)


def numbered(count: int | None = None) -> Iterator[bytes]:
    for number in itertools.count() if count is None else range(count):
        yield TINY_JPEG + bytes([number % 256])
        time.sleep(0.01)


def take(source: Iterator[bytes | Notice], wanted: int) -> tuple[list[bytes], list[str]]:
    """Pictures until there are so many, and the notices between them."""
    pictures, notices = [], []
    for item in source:
        if isinstance(item, Notice):
            notices.append(item.text)
        else:
            pictures.append(item)
        if len(pictures) == wanted:
            return pictures, notices
    raise AssertionError("the source ended")


@pytest.mark.parametrize("form", FORMS)
def test_mjpeg_over_http_is_passed_on_as_it_came(form: str) -> None:
    with camera(mjpeg(numbered, form)) as port:
        pictures, notices = take(open_source(f"http://127.0.0.1:{port}/stream.mjpg").pictures(), 20)
    assert notices == []
    assert set(pictures) == {TINY_JPEG}


def test_a_camera_that_goes_away_is_connected_to_again_and_each_attempt_is_a_line() -> None:
    running = TcpCamera(mjpeg(lambda: numbered(60)))
    try:
        source = open_source(f"http://127.0.0.1:{running.port}/stream").pictures()
        pictures, notices = take(source, 100)
    finally:
        running.close()
    assert len(pictures) == 100
    assert any("the connection ended; trying again in 0.0 s" in text for text in notices)
    assert any("reconnected" in text for text in notices)
    more = list(itertools.islice((item.text for item in source if isinstance(item, Notice)), 4))
    assert any("onnection refused" in text for text in more), more
    again = TcpCamera(mjpeg(numbered), running.port)
    try:
        assert take(source, 3)[1][-1].endswith("reconnected")
    finally:
        again.close()


def test_with_once_the_end_of_a_camera_is_a_failure() -> None:
    with camera(mjpeg(lambda: numbered(60))) as port:
        source = open_source(f"http://127.0.0.1:{port}/stream", once=True).pictures()
        with pytest.raises(Failure, match="the connection ended"):
            for _ in source:
                pass


def test_a_camera_that_falls_silent_is_given_up_and_tried_again(impatient: None) -> None:
    def talk(peer: socket.socket) -> None:
        mjpeg(lambda: numbered(60))(peer)
        peer.recv(1)  # until the other side has had enough

    with camera(talk) as port:
        _, notices = take(open_source(f"http://127.0.0.1:{port}/stream").pictures(), 90)
    assert any("no data for 1.5 s" in text for text in notices), notices


def test_a_camera_with_one_picture_for_each_request_is_asked_again() -> None:
    with camera(http_answer("200 OK", "Content-Type: image/jpeg\r\n", TINY_JPEG)) as port:
        pictures, notices = take(open_source(f"http://127.0.0.1:{port}/capture.jpg", fps=50).pictures(), 4)
    assert pictures == [TINY_JPEG] * 4
    assert notices == []


@pytest.mark.parametrize(
    ("talk", "says"),
    [
        (http_answer("401 Unauthorized", 'WWW-Authenticate: Basic realm="cam"\r\n'), "user name or password"),
        (http_answer("403 Forbidden"), r"\(403\)"),
        (http_answer("404 Not Found"), r"\(404\)"),
        (http_answer("200 OK", "Content-Type: text/html\r\n", b"<html>login</html>" * 99), "not a video"),
    ],
)
def test_what_no_further_attempt_would_mend_ends_it_with_a_sentence(talk, says: str) -> None:
    with camera(talk) as port, pytest.raises(Failure, match=says) as raised:
        take(open_source(f"http://user:hunter2@127.0.0.1:{port}/private").pictures(), 1)
    assert f"http://127.0.0.1:{port}/…" in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert "private" not in str(raised.value)


def test_a_wrong_password_of_rtsp_ends_it_with_a_sentence() -> None:
    def answer(_: bytes) -> str:
        return '401 Unauthorized\r\nWWW-Authenticate: Digest realm="cam", nonce="1"\r\n\r\n'

    with camera(rtsp(answer)) as port, pytest.raises(Failure, match="password is missing or wrong"):
        take(open_source(f"rtsp://user:p@ss[@127.0.0.1:{port}/x").pictures(), 1)


def test_a_password_with_odd_characters_arrives_as_it_was_written() -> None:
    heard: list[bytes] = []

    def answer(head: bytes) -> str:
        heard.append(head)
        return '401 Unauthorized\r\nWWW-Authenticate: Basic realm="cam"\r\n\r\n'

    with camera(rtsp(answer)) as port, pytest.raises(Failure):
        take(open_source(f"rtsp://us:p/w#1[@127.0.0.1:{port}/x").pictures(), 1)
    assert any(b"Authorization: Basic dXM6cC93IzFb" in head for head in heard)  # us:p/w#1[


def test_rtsp_with_sound_only_says_so(impatient: None) -> None:
    def answer(head: bytes) -> str:
        if head.startswith(b"DESCRIBE"):
            return f"200 OK\r\nContent-Type: application/sdp\r\nContent-Length: {len(AUDIO_ONLY)}\r\n\r\n{AUDIO_ONLY}"
        if head.startswith(b"SETUP"):
            return "200 OK\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n\r\n"
        return "200 OK\r\nPublic: DESCRIBE, SETUP, PLAY\r\nSession: 1\r\n\r\n"

    with camera(rtsp(answer)) as port, pytest.raises(Failure, match="no video, only audio"):
        take(open_source(f"rtsp://127.0.0.1:{port}/x").pictures(), 1)


def silent(peer: socket.socket) -> None:
    head_of(peer)
    peer.recv(1)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_server_that_never_answers_is_said_to_be_silent(impatient: None, scheme: str) -> None:
    with camera(silent) as port, pytest.raises(Failure, match=r"no data for 1\.5 s"):
        take(open_source(f"{scheme}://127.0.0.1:{port}/x", once=True).pictures(), 1)


def test_a_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(Failure, match=r"host name no-such-host\.invalid"):
        take(open_source("rtsp://user:hunter2@no-such-host.invalid/x", once=True).pictures(), 1)


def test_a_damaged_part_of_a_film_is_passed_over_and_told(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "film.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for number in range(20):
            picture = av.VideoFrame.from_image(image.new("RGB", (64, 48), (number * 10, 0, 0)))
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    whole = path.read_bytes()
    at = whole.index(b"\x89PNG", len(whole) // 2)
    path.write_bytes(whole[:at] + bytes(8) + whole[at + 8 :])
    items = list(open_source(str(path)).pictures())
    assert len([item for item in items if isinstance(item, bytes)]) >= 18
    assert any(isinstance(item, Notice) and "damaged" in item.text for item in items)
