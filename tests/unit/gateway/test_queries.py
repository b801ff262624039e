"""What stands in the query of a request."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from watchout.gateway.http.queries import AlertQuery
from watchout.gateway.http.responses import HttpError


def since(text: str) -> int:
    return AlertQuery.of(make_mocked_request("GET", f"/alerts?since={text}")).since


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("", 0), ("0", 0), ("1729943200000", 1729943200000), ("1729943200000.734", 1729943200000), ("0.9", 0),
        ("1.7299432e12", 1729943200000), ("17299432E5", 1729943200000), ("1e%2B3", 1000), (str(2**53 - 1), 2**53 - 1),
    ],
)  # fmt: skip
def test_a_time_may_be_written_in_every_form_of_a_number_and_loses_its_fraction(text, ms):
    assert since(text) == ms


@pytest.mark.parametrize(
    "text", ["x", "-1", "-0.5", ".5", "1.", "1e", "1e400", "nan", "inf", "1_000", "٣", " 1", str(2**53), "1" * 41, "0x"]
)
def test_what_is_no_time_is_told_what_came(text):
    with pytest.raises(HttpError) as caught:
        since(text)
    assert caught.value.status == 400
    assert "since is a time in ms since the epoch, from 0 to 9007199254740991, got " in str(caught.value.message)
