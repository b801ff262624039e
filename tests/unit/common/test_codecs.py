"""The registry of codecs: what the first bytes show, and what each codec is called where."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.media.codecs import BY_VALUE, JPEG_BASE64, Codec, sniff, sniff_base64


def ftyp(major: bytes, *others: bytes) -> bytes:
    return (16 + 4 * len(others)).to_bytes(4, "big") + b"ftyp" + major + bytes(4) + b"".join(others)


@pytest.mark.parametrize(
    ("picture", "codec"),
    [
        (b"\xff\xd8\xff", Codec.JPEG),
        (b"\xff\xd8\xff\xe1 Exif", Codec.JPEG),
        (b"\x89PNG\r\n\x1a\n and so on", Codec.PNG),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", Codec.WEBP),
        (b"RIFF\n\n\n\nWEBP", Codec.WEBP),
        (b"GIF87a", Codec.GIF),
        (b"GIF89a...", Codec.GIF),
        (ftyp(b"avif", b"mif1", b"miaf"), Codec.AVIF),
        (ftyp(b"avis", b"avif", b"msf1"), Codec.AVIF),
        (ftyp(b"mif1", b"mif1", b"avif"), Codec.AVIF),
        (ftyp(b"heic", b"mif1", b"heic"), Codec.HEIC),
        (ftyp(b"heix"), Codec.HEIC),
        (ftyp(b"hevc"), Codec.HEIC),
        (ftyp(b"mif1", b"mif1", b"heic"), Codec.HEIC),
        (ftyp(b"msf1", b"hevc"), Codec.HEIC),
        (ftyp(b"mif1", b"mif1"), Codec.OPAQUE),
        (ftyp(b"isom", b"iso2", b"avc1", b"mp41"), Codec.OPAQUE),
        (ftyp(b"mp42", b"heic"), Codec.OPAQUE),
        (ftyp(b"mif1") + b"heic", Codec.OPAQUE),
        (b"\x00\x00\x00\x18ftyp", Codec.OPAQUE),
        (b"\xff\xd8", Codec.OPAQUE),
        (b"\x89PNG", Codec.OPAQUE),
        (b"RIFF\x10\x00\x00\x00WAVE", Codec.OPAQUE),
        (b"RIFF", Codec.OPAQUE),
        (b"GIF90a", Codec.OPAQUE),
        (b"BM6\x00", Codec.OPAQUE),
        (b"<svg", Codec.OPAQUE),
        (b" \xff\xd8\xff", Codec.OPAQUE),
        (b"null", Codec.OPAQUE),
        (b"\x9e\xe9\x65", Codec.OPAQUE),
        (b"", Codec.OPAQUE),
    ],
    ids=repr,
)
def test_the_first_bytes_show_the_codec(picture: bytes, codec: Codec) -> None:
    assert sniff(picture) is sniff(memoryview(picture)) is codec
    assert sniff(picture + b"and much more") is codec or codec is Codec.OPAQUE
    text = b"((" + base64.b64encode(picture)
    assert sniff_base64(text, 2, len(text)) is codec
    assert sniff_base64(text.rstrip(b"="), 2, len(text.rstrip(b"="))) is codec


@given(
    st.binary(max_size=80),
    st.sampled_from([b"", b"\xff\xd8\xff", b"GIF89a", b"\x00\x00\x00\x20ftypmif1\x00\x00\x00\x00"]),
)
def test_base64_shows_what_its_bytes_show(rest: bytes, start: bytes) -> None:
    picture = start + rest
    text = base64.b64encode(picture)
    assert sniff_base64(text + b'"}', 0, len(text)) is sniff(picture)
    assert text.startswith(JPEG_BASE64) is (sniff(picture) is Codec.JPEG)


@given(st.binary(max_size=80))
def test_any_text_shows_a_codec_or_none(text: bytes) -> None:
    assert isinstance(sniff_base64(text, 0, len(text)), Codec)


@pytest.mark.parametrize(
    ("codec", "content_type", "extension", "number"),
    [
        (Codec.OPAQUE, "application/octet-stream", "bin", 0),
        (Codec.JPEG, "image/jpeg", "jpg", 1),
        (Codec.PNG, "image/png", "png", 2),
        (Codec.WEBP, "image/webp", "webp", 3),
        (Codec.GIF, "image/gif", "gif", 0),
        (Codec.AVIF, "image/avif", "avif", 0),
        (Codec.HEIC, "image/heic", "heic", 0),
    ],
)
def test_each_codec_has_its_names(codec: Codec, content_type: str, extension: str, number: int) -> None:
    assert (codec.content_type, codec.extension, codec.number) == (content_type, extension, number)
    assert codec.is_picture is (codec is not Codec.OPAQUE)
    assert len(BY_VALUE) == 7
