"""Responses over HTTP/1.1 are read as the standard library reads them, however they are cut."""

from __future__ import annotations

import http.client
import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.toolbox.http_bounds import BodyTooLarge
from watchout.mlbridge.targets.http_response import MAX_HEAD_BYTES, BadResponse, HttpResponse, ResponseReader

MAX = 1000
OK = b"HTTP/1.1 200 OK\r\n"


def read(data: bytes, *, cuts: tuple[int, ...] = (), ends: bool = False) -> HttpResponse | None:
    reader = ResponseReader(MAX)
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for begin, end in pairwise(places):
        found = reader.feed(data[begin:end])
        if found is not None:
            return found
    return reader.end() if ends else None


class _Socket:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def by_the_library(data: bytes) -> tuple[int, bytes, str | None]:
    response = http.client.HTTPResponse(_Socket(data), method="POST")  # type: ignore[arg-type]
    response.begin()
    return response.status, response.read(), response.headers.get("X-Name")


NAMES = st.sampled_from(["X-Name", "x-name", "Date", "Server"])
VALUES = st.text(st.characters(codec="latin-1", exclude_categories=("C", "Z")), max_size=20)


@st.composite
def responses(draw: st.DrawFn) -> tuple[bytes, bytes, bool]:
    """A response, its body, and whether the end of the connection ends it."""
    body = draw(st.binary(max_size=300))
    names = draw(st.dictionaries(NAMES, VALUES, max_size=2))
    lines = [
        f"{name}:{draw(st.sampled_from(['', ' ', '  ']))}{value}".encode("latin-1") for name, value in names.items()
    ]
    way = draw(st.sampled_from(["length", "chunks", "end"]))
    end = draw(st.sampled_from([b"\r\n", b"\n"])) if way != "chunks" else b"\r\n"
    sent = body
    if way == "length":
        lines.append(b"Content-Length: %d" % len(body))
    elif way == "chunks":
        lines.append(b"transfer-encoding: Chunked")
        places = sorted({*draw(st.lists(st.integers(0, len(body)), max_size=4)), 0, len(body)})
        parts = [body[a:b] for a, b in pairwise(places)]
        extension = draw(st.sampled_from([b"", b";a=b"]))
        sent = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts) + b"0\r\n"
        sent += draw(st.sampled_from([b"", b"X-Sum: 1\r\n"])) + b"\r\n"
    interim = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n"]))
    return interim + end.join([b"HTTP/1.1 200 OK", *lines, b"", b""]) + sent, body, way == "end"


@given(responses(), st.lists(st.integers(0, 600), max_size=8))
def test_a_response_is_read_as_the_library_reads_it_however_it_is_cut(
    made: tuple[bytes, bytes, bool], cuts: list[int]
) -> None:
    data, body, ends = made
    found = read(data, cuts=tuple(cuts), ends=ends)
    status, by_library, _ = by_the_library(data)
    assert found is not None
    assert (found.status, found.body) == (status, by_library) == (200, body)
    assert found.is_last is ends


def test_bytes_are_read_one_by_one() -> None:
    data = OK + b"Content-Length: 2\r\nX-Name: a\r\n\r\n{}"
    assert read(data, cuts=tuple(range(len(data)))) == read(data)


def test_names_are_in_lower_case_and_values_of_one_name_are_joined() -> None:
    found = read(OK + b"ACCEPT: image/*\r\nAccept:  b \t\r\nContent-Length: 0\r\n\r\n")
    assert found is not None
    assert found.headers == {"accept": "image/*, b", "content-length": "0"}


@pytest.mark.parametrize(
    ("head", "is_last"),
    [
        (b"HTTP/1.1 200 OK\r\n", False),
        (b"HTTP/1.1 200\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: X, Close\r\n", True),
        (b"HTTP/1.0 200 OK\r\n", True),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", False),
    ],
)
def test_a_connection_takes_further_requests_as_the_response_says(head: bytes, is_last: bool) -> None:
    found = read(head + b"Content-Length: 2\r\n\r\n{}")
    assert found is not None
    assert found.is_last is is_last


def test_what_follows_a_response_unasked_ends_the_connection() -> None:
    found = read(OK + b"Content-Length: 2\r\n\r\n{}HTTP")
    assert found is not None
    assert found.is_last


def test_one_response_follows_the_other() -> None:
    reader = ResponseReader(MAX)
    for number in range(3):
        assert reader.feed(OK + b"Content-Length: 1\r\n\r\n") is None
        found = reader.feed(b"%d" % number)
        assert found is not None
        assert (found.body, found.is_last) == (b"%d" % number, False)


@pytest.mark.parametrize("status", [204, 304])
def test_these_statuses_have_no_body(status: int) -> None:
    found = read(b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\n" % status)
    assert found is not None
    assert (found.status, found.body, found.is_last) == (status, b"", False)


def test_a_failure_is_told_without_the_rest_of_its_body() -> None:
    for framing in (b"Content-Length: 99999999", b"Transfer-Encoding: chunked", b"X: y"):
        found = read(b"HTTP/1.1 503 No\r\nRetry-After: 7\r\n%b\r\n\r\n" % framing)
        assert found is not None
        assert (found.status, found.headers["retry-after"], found.is_last) == (503, "7", True)
    whole = read(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno")
    assert whole is not None
    assert not whole.is_last


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b" folded: x\r\n\r\n",
        OK + b"A: b\r\n folded\r\n\r\n",
        OK + b"A: b\rc\r\n\r\n",
        OK + b"A b: c\r\n\r\n",
        OK + b": c\r\n\r\n",
        OK + b"Content-Length: -5\r\n\r\n",
        OK + b"Content-Length: \r\n\r\n",
        OK + b"Content-Length: 1, 2\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        OK + "Content-Length: ²\r\n\r\n".encode("latin-1"),
        OK + b"Content-Length: 9999999999999999\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        OK + b"X: " + b"y" * MAX_HEAD_BYTES,
        OK + b"X: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * (MAX_HEAD_BYTES + 1),
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"y" * MAX_HEAD_BYTES + b"\r\n",
    ],
)  # fmt: skip
def test_what_is_no_response_is_refused_with_what_came(data: bytes) -> None:
    for cuts in ((), tuple(range(0, len(data), 97))):
        with pytest.raises(BadResponse, match=r"expected|over"):
            read(data, cuts=cuts)


def test_the_same_length_twice_is_one_length() -> None:
    found = read(OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}")
    assert found is not None
    assert found.body == b"{}"


@pytest.mark.parametrize(
    "data",
    [
        OK + b"Content-Length: 1001\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + bytes(1001),
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1f4\r\n%b\r\n" % bytes(500) * 3,
        OK + b"\r\n" + bytes(1001),
    ],
)
def test_a_body_over_the_limit_is_refused(data: bytes) -> None:
    with pytest.raises(BodyTooLarge, match="1000"):
        read(data)
    with pytest.raises(BodyTooLarge, match="1000"):
        read(data, cuts=tuple(range(0, len(data), 100)))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "^$"),
        (b"HTTP/1.1 200", "within the head"),
        (OK + b"Content-Length: 50\r\n\r\nshort", "after 5 bytes"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc", "after 3 bytes"),
    ],
)
def test_an_answer_that_the_connection_cuts_short_is_none(data: bytes, says: str) -> None:
    with pytest.raises(BadResponse, match=says):
        read(data, ends=True)


@pytest.mark.parametrize("size", [0, 5000])
def test_responses_with_the_same_head_share_headers_that_nobody_can_change(size: int) -> None:
    head = OK + b"Content-Length: 2\r\nX: " + bytes(size).replace(b"\0", b"y") + b"\r\n\r\n"
    for body in (b"{}", b"[]"):
        response = read(head + body)
        assert response is not None
        assert (response.body, response.headers["x"]) == (body, "y" * size)
        with pytest.raises(TypeError):
            response.headers["x"] = "z"  # type: ignore[index]


@given(st.binary(max_size=200), st.lists(st.integers(0, 300), max_size=3))
def test_whatever_comes_only_these_errors_are_raised(data: bytes, cuts: list[int]) -> None:
    for head in (b"", b"HTTP/1.1 ", OK, OK + b"Transfer-Encoding: chunked\r\n\r\n"):
        try:
            read(head + data, cuts=tuple(cuts), ends=True)
        except (BadResponse, BodyTooLarge):
            continue
