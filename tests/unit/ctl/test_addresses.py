from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.ctl.sources.addresses import AddressFault, parse_camera, scheme_of


@pytest.mark.parametrize(
    ("text", "shown", "opened"),
    [
        ("rtsp://cam", "rtsp://cam", "rtsp://cam"),
        ("RTSP://cam:8554/", "rtsp://cam:8554", "rtsp://cam:8554/"),
        ("rtsp://10.0.0.7:554/h264", "rtsp://10.0.0.7:554/…", "rtsp://10.0.0.7:554/h264"),
        ("rtsp://[::1]:554/x", "rtsp://[::1]:554/…", "rtsp://[::1]:554/x"),
        (
            "rtsp://host/user=admin&password=hunter2&channel=1",
            "rtsp://host/…",
            "rtsp://host/user=admin&password=hunter2&channel=1",
        ),
        ("rtsp://u:p@host/x?token=t", "rtsp://host/…", "rtsp://u:p@host/x?token=t"),
        ("rtsp://u:p@ss@host/", "rtsp://host", "rtsp://u:p%40ss@host/"),
        ("rtsp://u:p[a]@host/x", "rtsp://host/…", "rtsp://u:p%5Ba%5D@host/x"),
        ("rtsp://u:a%20b@host/x", "rtsp://host/…", "rtsp://u:a%20b@host/x"),
        ("rtsp://u:100%@host/x", "rtsp://host/…", "rtsp://u:100%25@host/x"),
        ("rtsp://admin:pass#1@cam.local/live", "rtsp://cam.local/…", "rtsp://admin:pass%231@cam.local/live"),
        ("rtsp://admin:p/w?d@cam/live", "rtsp://cam/…", "rtsp://admin:p%2Fw%3Fd@cam/live"),
        ("rtsp://cam/axis@1", "rtsp://cam/…", "rtsp://cam/axis@1"),
        ("http://cam:81/stream.mjpg", "http://cam:81/…", "http://cam:81/stream.mjpg"),
    ],
)
def test_an_address_is_opened_with_its_secrets_and_shown_without(text: str, shown: str, opened: str) -> None:
    address = parse_camera(text)
    assert (address.shown, address.opened_as) == (shown, opened)
    assert "hunter2" not in repr(address)


@pytest.mark.parametrize(
    ("text", "port"), [("rtsp://h", 554), ("rtsps://h", 322), ("http://h", 80), ("https://h", 443), ("rtsp://h:9", 9)]
)
def test_without_a_port_it_is_the_schemes(text: str, port: int) -> None:
    assert parse_camera(text).port == port


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://us/er:p@ss#1@host/x", "rtsp://user:s3cret@ss#1@host", "rtsp://us/er:s3cret@", "rtsp://user:s3cret@",
        "rtsp://", "rtsp:///x", "rtsp://:554/x", "rtsp://host:99999/x", "rtsp://host:0/x", "rtsp://ho st/x",
        "rtsp://user:s3cret@host:port/x", "rtsp://[::1/x", "ftp://user:s3cret@host/x", "rtsp://u@host/a:b@c",
    ],
)  # fmt: skip
def test_what_cannot_be_made_out_is_refused_with_a_remedy_and_without_its_secrets(text: str) -> None:
    with pytest.raises(AddressFault) as raised:
        parse_camera(text)
    said = str(raised.value)
    assert "p@ss" not in said
    assert "s3cret" not in said
    assert "ss#1" not in said
    assert "expected" in said or "%40" in said or "no host" in said


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=20))
def test_no_password_is_shown_whatever_it_is_made_of(password: str) -> None:
    marked = f"Zq{password}qZ"
    try:
        shown = parse_camera(f"rtsp://admin:{marked}@camera.example:8554/live").shown
    except AddressFault as fault:
        shown = str(fault)
    assert not any(part in shown for part in re.split(r"[/?#@:]", marked) if len(part) > 3)


@pytest.mark.parametrize(
    ("text", "scheme"),
    [("rtsp://x", "rtsp"), ("HTTP://x", "http"), ("film.mp4", None), ("/dev/video0", None), ("c:/x", None)],
)
def test_a_path_has_no_scheme(text: str, scheme: str | None) -> None:
    assert scheme_of(text) == scheme
