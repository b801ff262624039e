"""The checks of a request's head: its grammar, its sizes, and the headers read from it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.gateway.client.handshake import values_of
from watchout.gateway.listen.head import (
    MAX_COOKIE_BYTES,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_LINE_BYTES,
    HeadFault,
    check_fields,
    check_head,
)


def request(*fields: bytes, line: bytes = b"GET /health HTTP/1.1") -> bytes:
    return b"\r\n".join([line, *fields, b"", b""])


HOST = b"Host: localhost"


@pytest.mark.parametrize(
    "whole",
    [
        request(HOST), request(b"host:localhost:3000"), request(b"HOST: \t [::1]:3000 "), request(b"Host:"),
        request(HOST, b"X:"), request(HOST, b"X: \xff\xfe", b"X: a\tb", b"x!#$%&'*+.^_`|~: y"),
        request(HOST, *[b"X: y"] * (MAX_HEADERS - 1)), request(line=b"GET / HTTP/1.0"),
        request(HOST, line=b"OPTIONS * HTTP/1.1"), request(HOST, line=b"GET http://localhost/ HTTP/1.1"),
        request(HOST, b"X: " + b"y" * (MAX_LINE_BYTES - 3)),
        request(HOST, b"Cookie: " + b"y" * (MAX_COOKIE_BYTES - 8)),
        request(HOST, b"X: " + b"y" * 8000, *[b"cookie:" + b"y" * 8000] * 8),
    ],
)  # fmt: skip
def test_these_heads_are_in_order(whole: bytes) -> None:
    check_head(whole)


@pytest.mark.parametrize(
    "whole",
    [
        request(), request(b"X: y"), request(HOST, HOST), request(HOST, b"host: other"), request(b"Host: a b"),
        request(b"Host: a, b"), request(b"Host: a/b"), request(b"Host: a@b"), request(b"Host: \xff"),
        request(b"X: y", b"Host: a", b"Host: a", line=b"GET / HTTP/1.0"),
        request(HOST, b" folded"), request(HOST, b"X: y", b"\tfolded"), request(b" " + HOST), request(HOST, b"X : y"),
        request(HOST, b": y"), request(HOST, b"no colon"), request(HOST, b"X: a\0b"), request(HOST, b"X\0: b"),
        request(HOST, b"X: a\rb"), request(HOST, b"X: a\nY: b"), request(HOST, b"X: a\x7f"),
        request(HOST, b"X: a\x1b["),
        request(HOST, b"X\xe9: a"), request(HOST, b"(X): a"), request(HOST, line=b""), request(HOST, line=b"GET"),
        request(HOST, line=b"GET /"), request(HOST, line=b"GET  / HTTP/1.1"), request(HOST, line=b"GET / HTTP/1.1 "),
        request(HOST, line=b"GET / HTTP/2.0"), request(HOST, line=b"GET / HTTP/1.2"),
        request(HOST, line=b"GET / http/1.1"),
        request(HOST, line=b"GET /\xff HTTP/1.1"), request(HOST, line=b"GET /a b HTTP/1.1"),
        request(HOST, line=b"GET /\0 HTTP/1.1"), request(HOST, line=b"G(T / HTTP/1.1"),
        request(HOST, line=b"GET\t/ HTTP/1.1"), request(HOST, line=b"G" * 33 + b" / HTTP/1.1"),
    ],
)  # fmt: skip
def test_these_are_bad_requests(whole: bytes) -> None:
    with pytest.raises(HeadFault) as fault:
        check_head(whole)
    assert (fault.value.status, fault.value.code) == (400, "BAD_REQUEST")


@pytest.mark.parametrize(
    ("whole", "status"),
    [
        (request(HOST, *[b"X: y"] * MAX_HEADERS), 431),
        (request(HOST, *[b"no colon"] * 1000), 400),
        (request(HOST, *[b"X: " + b"y" * 4000] * 5), 431),
        (request(HOST, b"Cookie: " + b"y" * MAX_COOKIE_BYTES), 431),
        (request(HOST, *[b"Cookie: " + b"y" * 8000] * 9), 431),
        (request(HOST, b"Cookie: " + b"y" * 60_000, b"X: " + b"y" * MAX_LINE_BYTES), 431),
        (request(HOST, b"XCookie: " + b"y" * 10_000), 431),
        (request(HOST, b"X: " + b"y" * (MAX_LINE_BYTES - 2)), 431),
        (request(HOST, b"X: " + b"y" * MAX_HEAD_BYTES), 431),
        (request(HOST, line=b"GET /" + b"a" * MAX_LINE_BYTES + b" HTTP/1.1"), 414),
    ],
)
def test_what_is_too_much_is_said_to_be(whole: bytes, status: int) -> None:
    with pytest.raises(HeadFault) as fault:
        check_head(whole)
    assert fault.value.status == status


@given(st.binary(max_size=300))
def test_any_head_is_taken_or_refused(data: bytes) -> None:
    with contextlib.suppress(HeadFault):
        check_head(data + b"\r\n\r\n")


def test_the_values_of_a_header_are_found_line_by_line() -> None:
    whole = request(HOST, b"X-Forwarded-For: a, b", b"X: X-Forwarded-For: no", b"x-forwarded-for:\tc ")
    assert values_of(whole, "x-forwarded-for") == ["a, b", "c"]
    assert values_of(whole, "y") == []
    assert values_of(request(b"X-Y: a", b"XzY: b"), "x-y") == ["a"]


@given(st.lists(st.tuples(st.sampled_from(["Cookie", "cookie", "X"]), st.integers(0, 20_000)), max_size=8))
def test_a_head_that_was_read_elsewhere_has_the_same_bounds(fields: list[tuple[str, int]]) -> None:
    pairs = [(name.encode(), b"y" * size) for name, size in fields]
    with contextlib.suppress(HeadFault):
        check_head(request(HOST, *(name + b": " + value for name, value in pairs)))
        check_fields([(b"Host", b"localhost"), *pairs], host_needed=True)
