"""The size of a picture by its head, against the pictures that a real encoder makes."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.media.codecs import BY_VALUE, Codec, sniff
from watchout.common.media.picture_size import MAX_PIXELS

Image = pytest.importorskip("PIL.Image")

FORMATS = (
    ("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"exif": b"Exif\0\0" + bytes(5000)}), ("PNG", {}),
    ("PNG", {"compress_level": 0}), ("GIF", {}), ("WEBP", {}), ("WEBP", {"lossless": True}),
    ("WEBP", {"exif": b"Exif\0\0" + bytes(50)}), ("AVIF", {}),
)  # fmt: skip


def made(kind: str, size: tuple[int, int] = (37, 23), mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 60).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "options"), FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (37, 23), (640, 480)])
def test_the_size_is_the_one_that_was_encoded(kind, options, size):
    picture = made(kind, size, **options)
    assert sniff(picture).picture_size(picture) == size


@pytest.mark.parametrize(("kind", "options"), FORMATS)
def test_a_beginning_says_the_size_or_nothing(kind, options):
    picture = made(kind, **options)
    codec = sniff(picture)
    for end in range(len(picture)):
        assert codec.picture_size(picture[:end]) in (None, (37, 23))
    assert codec.picture_size(picture[:12]) is None


@given(st.sampled_from(list(BY_VALUE.values())), st.binary(max_size=300))
def test_any_bytes_have_a_size_that_can_be_shown_or_none(codec, data):
    for head in (
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\x10\0\0\0WEBPVP8 ",
        b"GIF89a",
        b"\0\0\0\x18ftypavif",
    ):
        size = codec.picture_size(head + data)
        assert size is None or 0 < size[0] * size[1] <= MAX_PIXELS


def test_what_only_begins_as_a_picture_has_no_size():
    jpeg = made("JPEG")
    start = jpeg.index(b"\xff\xc0")
    for none in (
        b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(range(256)) + b"\xff\xd9", b"\xff\xd8\xff\xd9", b"\xff" * 5000,
        jpeg[: start + 5] + bytes(4) + jpeg[start + 9 :], jpeg[: start + 5] + b"\xff\xdc" * 2 + jpeg[start + 9 :],
        jpeg[:start] + b"\xff\xc9" + jpeg[start + 2 :], b"\xff\xd8" + b"\xff\xfe\x00\x02" * 5000,
    ):  # fmt: skip
        assert Codec.JPEG.picture_size(none) is None
    assert Codec.PNG.picture_size(b"\x89PNG\r\n\x1a\n" + bytes(64)) is None
    assert Codec.WEBP.picture_size(b"RIFF\x40\x00\x00\x00WEBPVP8 " + bytes(64)) is None
    assert Codec.OPAQUE.picture_size(b"null") is None


def test_fill_bytes_before_a_marker_are_passed_over():
    jpeg = made("JPEG")
    assert Codec.JPEG.picture_size(jpeg[:2] + b"\xff" * 20 + jpeg[2:]) == (37, 23)
