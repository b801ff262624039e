"""Which parts a reader of a moving picture takes, and when one is sent although nothing new came."""

from __future__ import annotations

import pytest

from tests.kit.clients import JPEG
from watchout.common.media.codecs import Codec, pictures
from watchout.common.media.frames import Frame
from watchout.gateway.http.mjpeg_parts import AGAIN_EVERY_S, FIRST_AGAIN_S, MAX_WAITING_LINES, Silence, Taste, part_head

ALL = set(pictures())
COMMON = {Codec.JPEG, Codec.PNG, Codec.WEBP, Codec.GIF}
CHROMIUM = "image/jxl,image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
FIREFOX = "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5"
SAFARI = "image/webp,image/avif,image/jxl,image/heic,image/heic-sequence,video/*;q=0.8,image/png,image/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "agent", "codecs"),
    [
        ([], "", ALL), (["*/*"], "curl/8.5.0", ALL), (["multipart/x-mixed-replace"], "", ALL),
        (["text/html,application/xml;q=0.9,*/*;q=0.8"], "Mozilla/5.0", ALL),
        ([CHROMIUM], "Mozilla/5.0", COMMON | {Codec.AVIF}), ([FIREFOX], "Mozilla/5.0", COMMON | {Codec.AVIF}),
        ([SAFARI], "Mozilla/5.0", ALL), (["image/jpeg"], "", {Codec.JPEG}), (["Image/JPG ; q=1"], "", {Codec.JPEG}),
        (["image/png", "image/webp"], "", {Codec.PNG, Codec.WEBP}), (["image/*"], "", COMMON),
        (["image/svg+xml"], "", ALL), (["*/*"], "Lavf/59.27.100", {Codec.JPEG}), ([CHROMIUM], "lavf/1", {Codec.JPEG}),
        (["*/*"], "not Lavf/59", ALL),
    ],
)  # fmt: skip
def test_a_reader_gets_what_it_says_it_takes(accept, agent, codecs):
    taste = Taste.of(accept, agent)
    assert {codec for codec in pictures() if taste.takes(codec)} == codecs


def test_who_decodes_pictures_gets_none_without_a_size():
    broken = Frame("cam", 1, 5, picture=JPEG)
    assert not Taste.of([CHROMIUM], "Mozilla/5.0").can_show(broken)
    assert Taste.of(["*/*"], "").can_show(broken)
    assert not Taste.of([], "Lavf/59").can_show(broken)


def test_the_head_of_a_part_says_what_it_is():
    head = part_head(Frame("cam", 7, 1001, picture=JPEG)).decode()
    assert head.endswith("\r\n\r\n")
    assert dict(line.split(": ") for line in head.strip().split("\r\n")) == {
        "Content-Type": "image/jpeg", "Content-Length": str(len(JPEG)), "X-Frame-Id": "7", "X-Frame-Time": "1001",
    }  # fmt: skip


def test_a_silence_is_broken_after_a_second_and_then_every_ten():
    silence = Silence(100.0)
    assert silence.until == 100.0 + AGAIN_EVERY_S
    silence.new_part(103.0)
    assert silence.until == 103.0 + FIRST_AGAIN_S == 104.0
    silence.same_part(104.0)
    assert silence.until == 104.0 + AGAIN_EVERY_S == 114.0
    silence.new_part(110.0)
    assert silence.until == 111.0


def test_who_waits_for_a_first_picture_for_hours_is_let_go():
    silence = Silence(0.0)
    assert all(silence.waiting_line(silence.until) for _ in range(MAX_WAITING_LINES))
    assert not silence.waiting_line(silence.until)
