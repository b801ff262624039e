"""What is not as docs/protocol.md has it, on both sides of the port: documented answers only, and logs that stay lines.

First wrong types, numbers and names, field by field; then bytes that hypothesis makes from valid traffic. The examples
are the same in every run. Whatever was sent, the gateway prints no traceback and no line that a client made.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from tests.kit.clients import (
    BINARY,
    CLOSE,
    CONTINUATION,
    DEADLINE_S,
    JPEG,
    PING,
    PONG,
    TEXT,
    Clients,
    RawSocket,
    base64_of,
    eventually,
    http,
    new_name,
    pack_frame,
    web_socket_frame,
)
from tests.kit.processes import SERVICE_TOKEN, Watchout

pytestmark = pytest.mark.e2e

REGISTER: Final = "/streams/register"
SUBSCRIBE: Final = "/streams/subscribe"
BAD: Final = "INVALID_MESSAGE"
#: Stands where a client would like to begin a line of the log.
FORGED: Final = "forged-line"
CODES: Final = {
    "AUTH_REQUIRED", "AUTH_FAILED", "ALREADY_AUTHENTICATED", "UNAUTHORIZED", BAD, "UNKNOWN_MESSAGE_TYPE",
    "ROUTING_ERROR", "STREAM_TAKEN_OVER", "RATE_LIMITED", "TOO_MANY_CONNECTIONS",
}  # fmt: skip

examples = settings(
    max_examples=150, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@pytest.fixture(scope="module")
def token(plain_watchout: Watchout) -> str:
    return plain_watchout.token("mallory")


@pytest.fixture
def url(plain_watchout: Watchout) -> Iterator[str]:
    """Of the plain one; what the gateway printed meanwhile are whole lines of its own."""
    with plain_watchout.without_faults() as said:
        yield plain_watchout.url
        check_lines(said())


def check_lines(said: str) -> None:
    """Every line is one event, in printable ASCII. The last one may not be whole yet."""
    for line in said[: said.rfind("\n") + 1].splitlines():
        assert json.loads(line)["process"] == "gateway", line
        assert line.isascii(), line
        assert line.isprintable(), line


# ── fields ───────────────────────────────────────────────────────────────────────────────────────────────────────

NO_NAMES: Final = {
    "empty": "", "slash": "a/b", "star": "*", "dots and slashes": "../../etc/passwd", "newline": "a\nb",
    "carriage return": "a\r\nb", "trailing newline": "cam\n", "NUL": "a\0b", "percent": "%00", "quote": 'a"b',
    "space": "a b", "tab": "a\tb", "10 kB": "x" * 10_000, "129": "x" * 129, "RTL": "\u202eabc", "ANSI": "\x1b[31mred",
    "C1": "\x9b31m", "accent": "caf\xe9", "fullwidth": "\uff43\uff41\uff4d", "emoji": "\U0001f4f7", "BOM": "\ufeffcam",
    "line separator": "a\u2028b", "brace": "{}", "format": "%s%n", "SQL": "';drop table x;--", "backslash": "a\\b",
    "forged": f"cam\n{FORGED}", "lone surrogate": "\ud83d",
}  # fmt: skip
WRONG: Final = {
    "null": None, "true": True, "number": 5, "float": 0.5, "list": [], "nested list": [[]], "object": {},
    "text": "text", "digits": "5",
}  # fmt: skip
NUMBERS: Final = {
    "-1": "-1", "-0.1": "-0.1", "2**53": str(2**53), "2**64": str(2**64), "-2**63-1": str(-(2**63) - 1),
    "1e999": "1e999", "-1e999": "-1e999", "5000 digits": "9" * 5000, "NaN": "NaN", "Infinity": "Infinity",
}  # fmt: skip
MESSAGES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "auth": (SUBSCRIBE, {"token": "x"}),
    "subscribe": (SUBSCRIBE, {"streamId": "cam", "clientType": "x", "consumes": ["alert"], "format": "json",
                              "maxFps": 5, "lastFrame": True, "alertsSince": 5, "window": 5}),
    "unsubscribe": (SUBSCRIBE, {"streamId": "cam"}),
    "ack": (SUBSCRIBE, {"streamId": "cam", "frameId": 5}),
    "register": (REGISTER, {"streamId": "cam", "clientType": "x", "produces": ["alert"], "consumes": ["alert"]}),
    "video-frame": (REGISTER, {"streamId": "cam", "data": "eA==", "timestamp": 5}),
    "alert": (REGISTER, {"streamId": "cam", "severity": "low", "message": "m", "timestamp": 5, "frameId": 5,
                         "id": "i", "metadata": {}}),
}  # fmt: skip
FIELDS: Final = [(kind, name) for kind, (_, fields) in MESSAGES.items() for name in fields]
REQUIRED: Final = {
    ("auth", "token"), ("subscribe", "streamId"), ("unsubscribe", "streamId"), ("ack", "streamId"), ("ack", "frameId"),
    ("video-frame", "data"), ("alert", "severity"), ("alert", "message"),
}  # fmt: skip
STREAMS: Final = [(kind, name) for kind, name in FIELDS if name == "streamId"]


async def opened(url: str, clients: Clients, token: str, path: str) -> RawSocket:
    raw = await clients.raw(url)
    await raw.upgrade(f"{path}?token={token}")
    await raw.sign_in(token)
    return raw


async def answer(socket: RawSocket, message: str) -> dict[str, Any]:
    """The first error, which a second `auth` brings when the message itself brings none."""
    again = web_socket_frame(TEXT, b'{"type":"auth","token":"x"}')
    await socket.send(web_socket_frame(TEXT, message.encode()) + again)
    return await socket.json("error")


def kinds_of(value: Any) -> set[str]:
    if isinstance(value, bool):
        return {"true"}
    if isinstance(value, int):
        return {"number", "float"}
    return {str: {"text", "digits"}, list: {"list"}, dict: {"object"}}[type(value)]


@pytest.mark.parametrize(("kind", "name"), FIELDS)
async def test_a_field_of_a_wrong_type_is_an_invalid_message(url, token, clients, kind, name):
    path, fields = MESSAGES[kind]
    for wrong, value in WRONG.items():
        right = wrong in kinds_of(fields[name]) or (value is None and (kind, name) not in REQUIRED)
        if right and name not in ("format", "severity"):
            continue
        if name in ("frameId", "window") and wrong == "number":
            continue
        raw = await opened(url, clients, token, path)
        error = await answer(raw, json.dumps({"type": kind, **fields, name: value}))
        expected = {BAD} if not right or value is not None else {BAD, "ALREADY_AUTHENTICATED"}
        assert error["code"] in expected, (wrong, error)
        await raw.leave()


@pytest.mark.parametrize(
    ("kind", "name"), [pair for pair in FIELDS if kinds_of(MESSAGES[pair[0]][1][pair[1]]) & {"number"}]
)
@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
async def test_a_number_out_of_its_range_is_an_invalid_message(url, token, clients, kind, name, number):
    path, fields = MESSAGES[kind]
    raw = await opened(url, clients, token, path)
    whole = json.dumps({"type": kind, **fields, name: "@"}).replace('"@"', number)
    assert (await answer(raw, whole))["code"] == BAD
    assert (await answer(raw, '{"type":"auth","token":"x"}'))["code"] == "ALREADY_AUTHENTICATED"


@pytest.mark.parametrize(("kind", "name"), sorted(REQUIRED))
async def test_a_message_that_lacks_a_field_is_an_invalid_message_that_names_it(url, token, clients, kind, name):
    path, fields = MESSAGES[kind]
    raw = await opened(url, clients, token, path)
    error = await answer(raw, json.dumps({"type": kind} | {key: value for key, value in fields.items() if key != name}))
    assert error["code"] == BAD
    assert name in error["message"]


@pytest.mark.parametrize(("kind", "name"), STREAMS)
@pytest.mark.parametrize("stream", NO_NAMES.values(), ids=NO_NAMES)
async def test_what_is_no_stream_id_is_an_invalid_message_and_the_answer_is_one_clean_line(
    url, token, clients, kind, name, stream
):
    path, fields = MESSAGES[kind]
    raw = await opened(url, clients, token, path)
    error = await answer(raw, json.dumps({"type": kind, **fields, name: stream}))
    assert error["code"] == BAD
    assert error["message"].isprintable()
    assert len(error["message"]) < 500
    assert (await answer(raw, '{"type":"auth","token":"x"}'))["code"] == "ALREADY_AUTHENTICATED"


@pytest.mark.parametrize("text", NO_NAMES.values(), ids=NO_NAMES)
async def test_any_text_as_type_token_or_client_type_is_answered_in_one_clean_line(url, token, clients, text):
    raw = await opened(url, clients, token, SUBSCRIBE)
    error = await answer(raw, json.dumps({"type": text}))
    assert error["code"] in ("UNKNOWN_MESSAGE_TYPE", BAD)
    assert error["message"].isprintable()
    assert len(error["message"]) < 500
    assert (await answer(raw, json.dumps({"type": "auth", "token": text})))["code"] in ("ALREADY_AUTHENTICATED", BAD)
    stranger = await clients.raw(url)
    await stranger.upgrade(SUBSCRIBE)
    error = await answer(stranger, json.dumps({"type": "auth", "token": text}))
    assert error["code"] in ("AUTH_FAILED", "AUTH_REQUIRED", BAD)
    assert error["message"].isprintable()
    names = json.dumps({"type": "subscribe", "streamId": "cam", "clientType": text, "consumes": [text]})
    assert (await answer(raw, names))["code"] in ("ALREADY_AUTHENTICATED", BAD)


@pytest.mark.parametrize("stream", NO_NAMES.values(), ids=NO_NAMES)
async def test_what_is_no_stream_id_over_http_is_4xx_in_one_clean_line(url, token, clients, stream):
    name = quote(stream, safe="", errors="surrogatepass")
    pages = [f"/streams/{name}/frame.jpg", f"/alerts?streamId={name}", f"/alerts?streamId=cam&since={name}",
             f"/alerts?streamId=cam&limit={name}", f"/{name}", f"/streams/{name}",
             f"/streams?token={name}"]  # fmt: skip
    for page in pages:
        raw = await clients.raw(url)
        bearer = () if "token=" in page else (f"Authorization: Bearer {token}",)
        await raw.send(raw.head(page, *bearer))
        got = await raw.answer()
        if got.status == 200:
            assert (stream, page.partition("?")[0]) in {("", "/"), ("", "/alerts")}
            continue
        assert 400 <= got.status < 500, page
        assert got.error
        assert got.json["error"]["message"].isprintable()
        await raw.leave()
    alert = {"streamId": stream, "severity": "low", "message": "m"}
    for body in (alert, {**alert, "streamId": "cam", "severity": stream}, {**alert, "streamId": "cam", "type": stream}):
        pushed = await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=body)
        assert (pushed.status, pushed.error) == (400, BAD)
        assert pushed.json["error"]["message"].isprintable()


@pytest.mark.parametrize(
    "change",
    [{"severity": "fatal"}, {"severity": None}, {"message": ""}, {"message": "m" * 4097}, {"message": None},
     {"timestamp": -1}, {"timestamp": 2**64}, {"timestamp": "now"}, {"frameId": -1}, {"frameId": 2**32},
     {"frameId": 1.5}, {"id": ""}, {"id": "a b"}, {"id": "a\nb"}, {"id": "x" * 10_000}, {"id": "\u202e"}, {"id": 5},
     {"metadata": []}, {"metadata": "x"}, {"metadata": {"x": "y" * 16_384}}, {"streamId": None},
     {"type": "video-frame"}],
    ids=lambda change: ascii(change)[:40],
)  # fmt: skip
async def test_an_alert_that_does_not_fit_is_400_over_http_and_an_invalid_message_from_a_camera(
    url, token, clients, change
):
    alert = {"streamId": new_name(), "severity": "low", "message": "m", **change}
    pushed = await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)
    assert (pushed.status, pushed.error) == (400, BAD)
    if "type" in change or "streamId" in change:
        return
    camera = await clients.camera(url, token)
    stream = await camera.register(produces=["alert"])
    await camera.send("alert", **{**alert, "streamId": stream})
    await camera.expect("error", code=BAD)
    assert await camera.rest() == []


SERVICE: Final = f"Authorization: Bearer {SERVICE_TOKEN}"
HANDSHAKE: Final = (
    "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
)  # fmt: skip


def request(first: str, *more: str, body: bytes = b"") -> bytes:
    return "\r\n".join([first, "Host: a", *more, "", ""]).encode("latin-1") + body


ALERTS: Final = "POST /alerts HTTP/1.1"


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", ["json", "text"])
async def test_no_client_makes_a_line_of_the_log(watchout, clients, form):
    started = watchout(environ={"LOG_FORMAT": form, "LOG_LEVEL": "debug", "ABUSE_LIMIT": "3"})
    url, token = started.url, started.token()
    evil = f'x\r\n{FORGED} level=error\x1b[2J\x9b\u2028{FORGED}\u202e" {{'
    camera, viewer = await clients.camera(url, token), await clients.viewer(url, token)
    stream = await camera.register(clientType=evil, produces=["video-frame", "alert", evil[:60]])
    await viewer.subscribe(stream, clientType=evil, consumes=["alert", evil[:60]])
    await camera.send("alert", severity="low", message=evil, metadata={evil: evil})
    await viewer.find("alert", message=evil)
    await camera.show("*not base64*" + evil)
    other = await clients.viewer(url, token)
    with contextlib.suppress(ConnectionClosed):  # it is closed after three of them
        for wish in ({"type": evil}, {"type": "subscribe", "streamId": evil}, {"type": "auth", "token": evil}, evil):
            await other.send_raw(json.dumps(wish))
        for _ in range(5):
            await other.send_raw(evil)
    assert await other.closed() == 1008
    alert = {"streamId": stream, "severity": "low", "message": evil, "metadata": {evil: evil}, "id": "i"}
    for body in (alert, {**alert, "id": evil}, {**alert, "severity": evil}, evil.encode(), [alert, {evil: 1}]):
        await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=body)
    line, word = evil.encode().decode("latin-1"), quote(evil)
    for data in (
        request(f"GET /{line} HTTP/1.1"),
        request(f"GET /{word} HTTP/1.1"),
        line.encode("latin-1") * 2 + b"\r\n\r\n",
        request("GET / HTTP/1.1", f"X: {line}"),
        request(f"GET /streams/subscribe?token={word} HTTP/1.1", *HANDSHAKE, "X: \x1b[31m"),
        request("GET / HTTP/1.1", "User-Agent: \x1b[31m", f"Authorization: Bearer \x9b{FORGED}"),
        request(f"POST /alerts?{word} HTTP/1.1", SERVICE, "Content-Encoding: gzip", "Content-Length: 2", body=b"\n{"),
    ):
        raw = await clients.raw(url)
        with contextlib.suppress(ConnectionError):
            await raw.send(data)
        raw.send_end()
        await raw.gone()
    closing = await opened(url, clients, token, SUBSCRIBE)
    await closing.send(web_socket_frame(CLOSE, b"\x03\xe8" + FORGED.encode() + b"\n" + FORGED.encode()))
    assert await closing.close_code() == 1000
    assert (await http(f"{url}/health/live")).status == 200
    for process in started.processes:
        for said in process.output.split("\n")[:-1]:  # what follows the last end of a line may be half a line
            assert not said.startswith(FORGED)
            assert said.isascii(), said
            assert said.isprintable(), said
            if form == "json" and said:
                assert json.loads(said)["process"] == process.name
            elif said:
                assert re.match(r"\d\d:\d\d:\d\d\S* (debug|info|warning) ", said), said


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────────────────────

PICTURE: Final = pack_frame(JPEG, codec=1)
VALID: Final = [
    json.dumps({"type": kind, **fields}).encode() for kind, (_, fields) in MESSAGES.items()
] + [json.dumps({"type": "video-frame", "data": base64_of(JPEG)}).encode(), PICTURE, b"", b"{}", bytes(18)]  # fmt: skip
cuts = st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=6), st.integers(0, 6)), max_size=4)


def mutated(data: bytes, changes: list[tuple[int, bytes, int]]) -> bytes:
    """Some bytes replaced, put in or left out."""
    for at, new, length in changes:
        data = data[:at] + new + data[at + length :]
    return data


payloads = st.builds(mutated, st.sampled_from(VALID), cuts)
frames = st.builds(
    web_socket_frame,
    st.sampled_from([TEXT, TEXT, TEXT, BINARY, BINARY, CONTINUATION, PING, PONG, CLOSE, 3, 11]),
    payloads | st.binary(max_size=130),
    fin=st.sampled_from([True, True, True, False]),
    rsv=st.sampled_from([0, 0, 0, 0, 4, 1, 7]),
    masked=st.sampled_from([True] * 9 + [False]),
)
traffic = st.builds(mutated, st.lists(frames, max_size=8).map(b"".join), cuts | st.just([])) | st.binary(max_size=300)


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """The server's frames: opcode and payload, all of them whole, unmasked and final."""
    found: list[tuple[int, bytes]] = []
    while data:
        assert data[0] & 0xF0 == 0x80
        length, at = data[1], 2
        if length == 126:
            length, at = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, at = int.from_bytes(data[2:10], "big"), 10
        assert length < 1 << 30
        found.append((data[0] & 0xF, data[at : at + length]))
        assert len(found[-1][1]) == length
        data = data[at + length :]
    return found


@pytest.mark.parametrize("path", [REGISTER, SUBSCRIBE])
@pytest.mark.parametrize("way", ["stranger", "user", "deflate"])
@examples
@given(data=traffic, chop=st.sampled_from([0, 0, 1, 7]))
async def test_whatever_comes_on_a_websocket_the_answers_are_documented(url, token, path, way, data, chop):
    host, _, port = url.removeprefix("http://").partition(":")
    async with RawSocket(*await asyncio.open_connection(host, int(port)), host) as raw:
        lines = ("Sec-WebSocket-Extensions: permessage-deflate",) if way == "deflate" else ()
        await raw.upgrade(path if way == "stranger" else f"{path}?token={token}", *lines)
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(data), chop or len(data) or 1):
                await raw.send(data[at : at + (chop or len(data))])
                await asyncio.sleep(0)
        raw.send_end()
        said = frames_of(await raw.gone(DEADLINE_S))
    for n, (opcode, payload) in enumerate(said):
        assert opcode in (TEXT, BINARY, PONG, PING, CLOSE)
        if opcode == CLOSE:
            assert n == len(said) - 1
            code = int.from_bytes(payload[:2], "big") if payload else 1000
            assert code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014) or code >= 3000
            if code == 1011:  # only as the answer to a client that said it
                assert payload[2:] or b"\x88" in data or chop
        if opcode == TEXT:
            message = json.loads(payload)
            assert message["type"] in ("success", "error", "status", "alert", "video-frame")
            if message["type"] == "error":
                assert message["code"] in CODES
                assert message["message"].isprintable()


REQUESTS: Final = [
    request("GET /health/live HTTP/1.1"),
    request("GET /streams HTTP/1.1", "Authorization: Bearer x"),
    request(ALERTS, SERVICE, "Content-Length: 2", body=b"{}"),
    request(ALERTS, SERVICE, "Transfer-Encoding: chunked", body=b"2\r\n{}\r\n0\r\n\r\n"),
    request(ALERTS, SERVICE, "Content-Encoding: gzip", "Content-Length: 2", body=b"{}"),
    request("GET /streams/subscribe?token=x HTTP/1.1", *HANDSHAKE),
    request("GET /streams/cam/frame.jpg?token=x HTTP/1.1", "Cookie: a=b; better-auth.session_token=x.y"),
    request("GET /alerts?streamId=cam&since=1&limit=2 HTTP/1.1", "Expect: 100-continue"),
    request("OPTIONS * HTTP/1.1"),
    request("GET /stats HTTP/1.0"),
]
LINES: Final = [
    "Content-Length: 5", "Content-Length: -1", "Content-Length: 99999999999999999999", "Content-Length: 5, 5",
    "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Connection: close", "Connection: Upgrade",
    "Upgrade: h2c", "Upgrade: websocket", "Host: b", "Range: bytes=0-", ": a", "a", " a: b", "X: \xff", "X: a\0b",
    "Authorization: Bearer", "Authorization: Bearer \xff", "Authorization: Basic eDp5", "Cookie: " + "a=b; " * 1000,
    "Sec-WebSocket-Version: 8", "Sec-WebSocket-Extensions: ;;", "Origin: null", "If-None-Match: *", "Expect: x",
    "Content-Encoding: br", "Content-Encoding: deflate", "Content-Type: x", "X-Forwarded-For: x", "", "\n", "\r",
]  # fmt: skip


def with_lines(whole: bytes, more: list[str]) -> bytes:
    first, _, rest = whole.partition(b"\r\n")
    return b"\r\n".join([first, *(line.encode("latin-1") for line in more), rest])


requests = st.builds(
    mutated, st.builds(with_lines, st.sampled_from(REQUESTS), st.lists(st.sampled_from(LINES), max_size=4)),
    cuts | st.just([]),
)  # fmt: skip
KNOWN: Final = {100, 101, 200, 202, 204, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 426, 431, 501, 505}


@examples
@given(data=st.lists(requests, min_size=1, max_size=3).map(b"".join) | st.binary(max_size=400))
async def test_whatever_comes_on_the_http_port_the_answers_are_documented(url, data):
    host, _, port = url.removeprefix("http://").partition(":")
    async with RawSocket(*await asyncio.open_connection(host, int(port)), host) as raw:
        said = b""
        with contextlib.suppress(ConnectionError):
            await raw.send(data)
            with contextlib.suppress(TimeoutError):  # who has nothing to say yet waits for the rest of a request
                async with asyncio.timeout(0.03):
                    said = await raw.reader.read(65536)
        raw.send_end()
        said += await raw.gone(DEADLINE_S)
    assert not said or said.startswith(b"HTTP/"), said
    statuses = [int(status) for status in re.findall(rb"HTTP/\d\.\d (\d{3}) [A-Z]", said)]
    assert set(statuses) <= KNOWN, said
    if statuses and statuses[0] >= 400:
        body = said.partition(b"\r\n\r\n")[2].partition(b"HTTP/")[0]
        assert json.loads(body)["error"]["code"], said


@pytest.mark.parametrize("first", ["GET / HTTP/1.1", "GET /streams HTTP/1.1", ALERTS, "POST /nothing HTTP/1.1"])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "x-unknown", "gzip, gzip"])
@pytest.mark.parametrize("token", [True, False], ids=["service", "stranger"])
async def test_a_body_that_is_not_coded_as_it_says_is_a_4xx_or_not_looked_at(url, clients, first, coding, token):
    raw = await clients.raw(url)
    more = (SERVICE,) if token else ()
    await raw.send(request(first, *more, f"Content-Encoding: {coding}", "Content-Length: 4", body=b"\xff{}\xff"))
    answer = await raw.answer()
    assert answer.status == 200 or 400 <= answer.status < 500
    if answer.status != 200:
        assert answer.error
    assert (await http(f"{url}/health/live")).status == 200


async def test_a_body_is_asked_for_only_when_it_is_wanted_and_other_expectations_are_refused(url, clients):
    body = b'{"streamId":"cam","severity":"low","message":"m"}'
    sized, waits = f"Content-Length: {len(body)}", "Expect: 100-Continue"
    refused = [
        (request(ALERTS, sized, waits), 401), (request("POST /nothing HTTP/1.1", SERVICE, sized, waits), 404),
        (request("POST /stats HTTP/1.1", SERVICE, sized, waits), 405),
        (request(ALERTS, SERVICE, "Content-Length: 99999999", waits), 413),
        (request(ALERTS, SERVICE, sized, "Expect: x", body=body), 417),
        (request(ALERTS, SERVICE, sized, waits, "Expect: x", body=body), 417),
        (request("POST /nothing HTTP/1.1", sized, "Expect: x", body=body), 417),
        (request("GET / HTTP/1.1", "Expect: x"), 417),
    ]  # fmt: skip
    for sent, status in refused:
        raw = await clients.raw(url)
        await raw.send(sent)
        answer = await raw.answer()
        assert (answer.status, bool(answer.error)) == (status, True), sent
    raw = await clients.raw(url)
    await raw.send(request(ALERTS, SERVICE, sized, waits))
    assert (await raw.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    await raw.send(body)
    assert (await raw.answer()).status == 202
    raw = await clients.raw(url)
    await raw.send(request(ALERTS.replace("1.1", "1.0"), SERVICE, sized, "Expect: x", body=body))
    assert (await raw.answer()).status == 202, "HTTP/1.0 knows no expectations"


@pytest.mark.parametrize("path", ["/health", "/health/live", "/stats", "/metrics", "/streams", "/alerts", "/nothing"])
async def test_who_sends_no_more_after_its_requests_gets_its_answers(url, token, clients, path):
    one = request(f"GET {path} HTTP/1.1", f"Authorization: Bearer {token}")
    for number in (1, 1, 1, 1, 1, 3):
        raw = await clients.raw(url)
        await raw.send(one * number)
        raw.send_end()
        said = await raw.gone(DEADLINE_S)
        assert re.findall(rb"HTTP/1.1 (\d{3}) ", said) == [b"404" if path == "/nothing" else b"200"] * number, said


async def test_an_absolute_address_without_a_path_is_the_front_page(url, clients):
    for target, status in (
        ("http://h", 200),
        ("http://h?x=1", 200),
        ("http://h/health/live", 200),
        ("http://h/x", 404),
    ):
        raw = await clients.raw(url)
        await raw.send(request(f"GET {target} HTTP/1.1"))
        assert (await raw.answer()).status == status, target


async def test_a_body_with_its_end_is_taken_and_one_without_ends_the_connection(url, clients):
    body = b'{"streamId":"cam","severity":"low","message":"m"}'
    for sent, answer in ((body, b"HTTP/1.1 202 "), (body[:-1], b"")):
        raw = await clients.raw(url)
        await raw.send(request(ALERTS, SERVICE, f"Content-Length: {len(body)}", body=sent))
        raw.send_end()
        assert (await raw.gone(DEADLINE_S))[:13] == answer


@pytest.mark.parametrize("sent", [b"", b"{", b'{"streamId":'])
@pytest.mark.parametrize("ends", ["eof", "abort"])
@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("expect", [(), ("Expect: 100-continue",)], ids=["", "expect"])
async def test_a_caller_that_goes_before_its_body_is_whole_is_no_fault(url, clients, framing, ends, sent, expect):
    raw = await clients.raw(url)
    body = sent if framing.startswith("Content") else b"64\r\n" + sent
    await raw.send(request(ALERTS, SERVICE, framing, *expect, body=body))
    if not expect:  # else it goes before it can be told to continue
        assert (await http(f"{url}/health/live")).status == 200
    if ends == "eof":
        raw.send_end()
        await raw.gone()
    await raw.leave()
    assert (await http(f"{url}/health/live")).status == 200


async def test_after_all_that_the_gateway_serves_as_before(url, token, clients):
    camera, viewer = await clients.camera(url, token), await clients.viewer(url, token)
    await viewer.subscribe(await camera.register())
    for n in itertools.islice(itertools.count(1), 3):
        await camera.show()
        assert (await viewer.frame())["frameId"] == n

    async def healthy() -> bool:
        return bool((await http(f"{url}/health")).json["status"] == "healthy")

    await eventually(healthy)
