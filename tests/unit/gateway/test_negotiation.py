"""Which form of a resource a client accepts: browsers and programs, compressed or not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.gateway.http.negotiation import accepts_gzip, prefers_html

CHROMIUM = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    "accept",
    [
        [CHROMIUM], ["text/html"], ["TEXT/HTML"], ["application/json, text/html;q=0.1"],
        ["text/plain;q=0.5", "text/html"],
        ["text/html ; charset=utf-8 ; q=0.9, */*;q=0.1"], ["text/plain, text/html"],
    ],
)  # fmt: skip
def test_a_browser_gets_the_page(accept: list[str]) -> None:
    assert prefers_html(accept)


@pytest.mark.parametrize(
    "accept",
    [
        [], [""], ["*/*"], ["text/*"], ["application/json"], ["text/html;q=0"], ["text/html;q=0.000"],
        ["text/plain, text/html;q=0.5"], ["text/html;q=much"], ["text/html;q=-1"], ["text/html;q=2"], ["text/htmlx"],
    ],
)  # fmt: skip
def test_a_program_gets_text(accept: list[str]) -> None:
    assert not prefers_html(accept)


@pytest.mark.parametrize("accepted", [["gzip"], ["br, GZIP"], ["br", "gzip;q=0.1"], ["*"], ["x-gzip"], ["*;q=0, gzip"]])
def test_gzip_is_sent_where_it_is_accepted(accepted: list[str]) -> None:
    assert accepts_gzip(accepted)


@pytest.mark.parametrize("refused", [[], [""], ["br"], ["gzip;q=0"], ["*, gzip;q=0"], ["identity"], ["gzip;q=x"]])
def test_gzip_is_not_sent_where_it_is_not(refused: list[str]) -> None:
    assert not accepts_gzip(refused)


@given(st.lists(st.text()))
def test_no_value_of_a_header_is_too_strange(values: list[str]) -> None:
    prefers_html(values)
    accepts_gzip(values)
