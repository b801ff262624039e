"""Which parts a reader of a moving picture takes, and when one is sent although nothing new came."""

from __future__ import annotations

import pytest

from tests.kit.clients import JPEG
from watchout.common.media.codecs import Codec, pictures
from watchout.common.media.frames import Frame
from watchout.gateway.http.mjpeg_parts import (
    FIRST_REPEAT_S,
    MAX_WAITING_LINES,
    REPEAT_EVERY_S,
    AcceptedPictures,
    RepeatTimer,
    part_head,
)

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
    accepted = AcceptedPictures.of(accept, agent)
    assert {codec for codec in pictures() if accepted.accepts(codec)} == codecs


def test_who_decodes_pictures_gets_none_without_a_size():
    broken = Frame("cam", 1, 5, picture=JPEG)
    assert not AcceptedPictures.of([CHROMIUM], "Mozilla/5.0").can_show(broken)
    assert AcceptedPictures.of(["*/*"], "").can_show(broken)
    assert not AcceptedPictures.of([], "Lavf/59").can_show(broken)


def test_the_head_of_a_part_says_what_it_is():
    head = part_head(Frame("cam", 7, 1001, picture=JPEG)).decode()
    assert head.endswith("\r\n\r\n")
    assert dict(line.split(": ") for line in head.strip().split("\r\n")) == {
        "Content-Type": "image/jpeg", "Content-Length": str(len(JPEG)), "X-Frame-Id": "7", "X-Frame-Time": "1001",
    }  # fmt: skip


def test_a_picture_is_repeated_after_a_second_of_silence_and_then_every_ten():
    repeat = RepeatTimer(100.0)
    assert repeat.due == 100.0 + REPEAT_EVERY_S
    repeat.on_new_part(103.0)
    assert repeat.due == 103.0 + FIRST_REPEAT_S == 104.0
    repeat.on_repeated_part(104.0)
    assert repeat.due == 104.0 + REPEAT_EVERY_S == 114.0
    repeat.on_new_part(110.0)
    assert repeat.due == 111.0


def test_who_waits_for_a_first_picture_for_hours_is_let_go():
    repeat = RepeatTimer(0.0)
    assert all(repeat.take_waiting_line(repeat.due) for _ in range(MAX_WAITING_LINES))
    assert not repeat.take_waiting_line(repeat.due)
