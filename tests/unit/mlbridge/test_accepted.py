"""What a service accepts is read from the Accept header of its responses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.mlbridge.targets.accepted import accepted_types, takes


@pytest.mark.parametrize(
    ("accept", "jpeg", "webp", "multipart"),
    [
        (None, False, False, False),
        ("", False, False, False),
        ("*/*", False, False, False),
        ("application/json", False, False, False),
        ("image/*", True, True, False),
        ("image/jpeg", True, False, False),
        ("IMAGE/JPEG;q=0.5, application/json", True, False, False),
        ("image/*;q=0", False, False, False),
        ("image/*; q=0.000, multipart/form-data", False, False, True),
        ("image/*;q=1, multipart/form-data;q=0.9, application/json;q=0.5", True, True, True),
        ("image", False, False, False),
        ("x" * 1000 + ",image/*", False, False, False),
    ],
)
def test_what_a_header_says(accept: str | None, jpeg: bool, webp: bool, multipart: bool) -> None:
    found = accepted_types(accept)
    assert (takes(found, "image/jpeg"), takes(found, "image/webp"), takes(found, "multipart/form-data")) == (
        jpeg, webp, multipart,
    )  # fmt: skip


@given(st.text(max_size=100))
def test_any_text_is_read(accept: str) -> None:
    assert all("/" in kind for kind in accepted_types(accept))
