"""JSON from anybody: each document is taken by the rules of docs/protocol.md, or answered with a documented error.

The documents are those of the JSON Parsing Test Suite (json_test_suite.json, MIT licence, copyright 2016 Nicolas
Seriot; the licence stands in the file) and some that it does not have. A name that begins with `y` is JSON, with `n` is
none, with `i` may be either (RFC 8259 leaves it open). Each is sent as a message by a stranger and by a user, as the
value of an unknown field, as the body of `POST /alerts`, and as metadata of an alert.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.kit.clients import Answer, Clients, RawSocket, http, new_name
from tests.kit.dialogue import BAD, HI, Heard, again, dialogue, text
from tests.kit.processes import SERVICE_TOKEN, Watchout

pytestmark = pytest.mark.e2e

SUBSCRIBE: Final = "/streams/subscribe"
BEARER: Final = f"Authorization: Bearer {SERVICE_TOKEN}"
#: What is before authentication the answer to everything but `auth`.
REQUIRED: Final = "AUTH_REQUIRED"


def _suite() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, content in json.loads((Path(__file__).parent / "json_test_suite.json").read_text())["files"].items():
        whole = content if isinstance(content, str) else content["repeat"] * content["times"]
        found[name] = whole.encode("latin-1")
    return found


SUITE: Final = _suite()
BOM: Final = b"\xef\xbb\xbf"
DEEP: Final = 100_000
MORE: Final = {
    "n_nan": b"NaN", "n_infinity": b"-Infinity", "i_1e999": b"1e999", "i_minus_1e999": b"-1e999", "i_1e-999": b"1e-999",
    "i_5000_digits": b"9" * 5000, "i_minus_5000_digits": b"-" + b"9" * 5000, "i_5000_decimals": b"0." + b"3" * 5000,
    "i_4301_digits": b"1" * 4301, "n_5000_digits_and_a_letter": b"9" * 5000 + b"x", "i_2_to_the_64": b"%d" % 2**64,
    "y_2_to_the_53": b"%d" % 2**53, "y_2_to_the_63": b"%d" % 2**63, "i_exponent_of_5000_digits": b"1e" + b"9" * 5000,
    "y_nested_100": b"[" * 100 + b"]" * 100,
    "i_nested_arrays": b"[" * DEEP + b"]" * DEEP, "i_nested_objects": b'{"":' * DEEP + b"1" + b"}" * DEEP,
    "n_open_objects": b'{"":' * DEEP, "n_close_brackets": b"]" * DEEP, "n_open_text": b'"' + b"\\\\" * DEEP,
    "n_commas": b"[" + b"," * DEEP + b"]", "y_many_numbers": b"[" + b"1," * DEEP + b"1]",
    "y_many_keys": b"{" + b",".join(b'"%d":0' % n for n in range(20_000)) + b"}",
    "y_one_key_many_times": b"{" + b",".join([b'"same":[]'] * 20_000) + b"}",
    "y_long_key": b'{"' + b"k" * DEEP + b'":0}', "y_long_text": b'"' + b"t" * DEEP + b'"',
    "n_nul": b"\0", "n_nul_after": b"1\0", "n_nul_in_text": b'"a\0b"', "y_escaped_nul": b'"\\u0000"',
    "y_escaped_nul_as_key": b'{"\\u0000":"\\u0000"}', "n_newline_in_text": b'"a\nb"',
    "i_bom": BOM + b"1", "n_bom_alone": BOM, "n_bom_after": b"1" + BOM, "n_two_boms": BOM * 2 + b"1",
    "i_utf_16": "1".encode("utf-16"), "i_utf_32": "[1]".encode("utf-32-le"),
    "i_lone_high": b'"\\ud83d"', "i_lone_low": b'"\\ude00"', "i_swapped": b'"\\ude00\\ud83d"',
    "i_lone_as_key": b'{"\\ud83d":1}', "i_lone_and_pair": b'"\\ud83d\\ud83d\\ude00"', "y_pair": b'"\\ud83d\\ude00"',
    "i_surrogate_bytes": b'"\xed\xa0\x80"', "i_overlong": b'"\xc0\xaf"', "i_cut": b'"\xf0\x9f\x98"',
    "i_above_unicode": b'"\xf4\x90\x80\x80"', "n_single_quotes": b"'a'", "n_comment": b"/**/1", "n_hash": b"#\n1",
    "n_trailing_comma": b"[1,]", "n_bare_word": b"undefined", "n_python": b"None", "n_plus": b"+1", "n_hex": b"0x10",
    "n_two_documents": b"{}{}", "n_lines_of_documents": b"{}\n{}", "n_record_separator": b"\x1e{}\n",
    "n_other_white_space": b"\xc2\xa0 1", "n_vertical_tab": b"\x0b1", "n_xml": b"<a/>", "n_msgpack": b"\x81\xa1a\x01",
    "y_white_space": b" " * DEEP + b"1" + b"\n\r\t " * 1000, "n_nothing_but_white_space": b" \n\t\r" * 1000,
}  # fmt: skip
DOCUMENTS: Final = SUITE | MORE
#: Names of documents that one test takes, one after the other: a test for each costs more than what it looks at.
PORTIONS: Final = [list(DOCUMENTS)[at : at + 24] for at in range(0, len(DOCUMENTS), 24)]
each_portion = pytest.mark.parametrize("names", PORTIONS, ids=lambda names: f"{names[0]}...")


@contextlib.contextmanager
def looking_at(name: str) -> Iterator[bytes]:
    """Take the document of this name; a failure says which one it was."""
    try:
        yield DOCUMENTS[name]
    except Exception as exc:
        exc.add_note(f"with the document {name}")
        raise


@pytest.fixture(scope="module")
def token(plain_watchout: Watchout) -> str:
    return plain_watchout.token("json")


@pytest.fixture
def url(plain_watchout: Watchout) -> Iterator[str]:
    """Of the plain one; the test that made the gateway print a fault is the one that fails."""
    with plain_watchout.without_faults():
        yield plain_watchout.url


def is_utf_8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


async def opened(url: str, clients: Clients, token: str | None) -> RawSocket:
    raw = await clients.raw(url)
    await raw.upgrade(SUBSCRIBE)
    if token is not None:
        await raw.sign_in(token)
    return raw


async def push(socket: RawSocket, body: bytes) -> Answer:
    """`POST /alerts` on a connection that stays."""
    await socket.send(socket.head("/alerts", BEARER, f"Content-Length: {len(body)}", method="POST") + body)
    return await socket.answer()


def test_the_suite_is_whole() -> None:
    assert len(SUITE) == 318
    assert {name[:2] for name in DOCUMENTS} == {"y_", "n_", "i_"}
    for name, document in SUITE.items():
        if name.startswith("y_"):
            json.loads(document)


@each_portion
async def test_a_document_as_a_message_is_answered_with_an_error_and_the_socket_stays(url, token, clients, names):
    for name in names:
        with looking_at(name) as document:
            for who, code in ((None, REQUIRED), (token, BAD)):
                if who is None and len(document) > 60_000:  # over the limit of strangers, who are closed with 1009
                    continue
                raw = await opened(url, clients, who)
                if is_utf_8(document):
                    # A stranger's `auth` would be answered by the session store, before or after the ping behind it.
                    heard = await dialogue(raw, [*text(document), *text(document if who is None else again())])
                    after = {REQUIRED, BAD} if who is None else {HI}
                    assert heard.said[0] == code
                    assert set(heard.said[1:]) <= after
                    assert heard.close is None
                else:
                    assert await dialogue(raw, text(document), ends=True) == Heard([], b"\x03\xeftext is not UTF-8")
                await raw.leave()


@each_portion
async def test_a_document_in_an_unknown_field_is_passed_over_if_it_is_json(url, token, clients, names):
    for name in names:
        with looking_at(name) as document:
            raw = await opened(url, clients, token)
            message = b'{"type":"unsubscribe","streamId":"x","unknown":%b}' % document
            if is_utf_8(document):
                heard = await dialogue(raw, [*text(message), *text(again())])
                said = {"y": [["success"]], "n": [[BAD]], "i": [["success"], [BAD]]}[name[0]]
                assert heard in [Heard([*each, HI]) for each in said]
            else:
                assert (await dialogue(raw, text(message), ends=True)).code == 1007
            await raw.leave()


@each_portion
async def test_a_document_as_the_body_of_alerts_is_400_unless_it_is_an_empty_list(url, clients, names):
    raw = await clients.raw(url)
    for name in names:
        with looking_at(name) as document:
            for body in (document, b"[%b]" % document):
                answer = await push(raw, body)
                if answer.status == 202:
                    assert answer.json == {"accepted": []}
                    assert json.loads(body) == []
                else:
                    assert (answer.status, answer.error) == (400, "INVALID_MESSAGE")
    assert (await http(f"{url}/health/live")).status == 200


@each_portion
async def test_a_document_in_an_alert_reaches_viewers_as_the_same_json_or_is_400(url, token, clients, names):
    camera, viewer = await clients.camera(url, token), await clients.viewer(url, token)
    raw = await clients.raw(url)
    for name in names:
        with looking_at(name) as document:
            stream = new_name()
            await camera.register(stream)
            await viewer.subscribe(stream, consumes=["alert"])
            head = f'{{"streamId":"{stream}","severity":"low","message":"m",'.encode()
            answer = await push(raw, head + b'"metadata":{"x":%b}}' % document)
            if answer.status == 202:
                assert name[0] in "yi"
                value = json.loads(document)
                alert = await viewer.find("alert")  # which the client has decoded, so that it is JSON and UTF-8
                assert alert["metadata"] == {"x": value}
                kept = await http(f"{url}/alerts?streamId={stream}", token=token)
                assert [each["metadata"] for each in kept.json["alerts"]] == [{"x": value}]
            else:
                assert (answer.status, answer.error) == (400, "INVALID_MESSAGE")
                assert name[0] in "ni" or len(document) > 16 * 1024 or name == "y_nested_100"
            answer = await push(raw, head + b'"unknown":%b}' % document)
            # What is passed on has the bounds of metadata.
            bounded = len(document) > 16 * 1024 or name == "y_nested_100"
            assert answer.status == {"y": 202, "n": 400}.get(name[0], answer.status) or (bounded and name[0] == "y")
            assert answer.status in (202, 400)
            if answer.status == 202:
                assert (await viewer.find("alert"))["unknown"] == json.loads(document)
            await viewer.send("unsubscribe", streamId=stream)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b'{"type":"subscribe","type":"auth","token":"x"}', {HI, BAD}),
        (b'{"type":"auth","token":"x","type":"nonsense"}', {"nonsense", HI}),
        (b'{"type":"auth","token":1,"token":"x"}', {HI, BAD}),
        (b'{"type":"auth","token":"x","token":1}', {BAD}),
        (b'{"type":"\\u0061uth","token":"x"}', {HI}),
        (b'{"t\\u0079pe":"auth","token":"x"}', {HI}),
        (b'{"type":"auth\\u0000","token":"x"}', {"auth\\x00"}),
        (b'{"type":"auth","token":"\\ud83d"}', {HI, BAD}),
        (b'{"type":"\\ud83d","token":"x"}', {"\\ud83d", BAD}),
        (b'{"type":"unsubscribe","streamId":"\\ud83d"}', {BAD}),
        (b'{"Type":"auth","token":"x"}', {BAD}),
        (b'{"type":["auth"],"token":"x"}', {BAD}),
        (b'{"type":null,"token":"x"}', {BAD}),
        (BOM + b'{"type":"auth","token":"x"}', {HI, BAD}),
        (b' \n{"type":"auth","token":"x"}\r\t ', {HI}),
        (b'{"type":"auth","token":"x"}{"type":"auth","token":"x"}', {BAD}),
        (b'[{"type":"auth","token":"x"}]', {BAD}),
        (b'"{\\"type\\":\\"auth\\",\\"token\\":\\"x\\"}"', {BAD}),
        (b'{"":0,"type":"auth","token":"x"}', {HI}),
        (b'{"__proto__":{"type":"nonsense"},"constructor":1,"type":"auth","token":"x"}', {HI}),
    ],
)  # fmt: skip
async def test_odd_objects_are_read_in_one_way(url, token, clients, message, expected):
    raw = await opened(url, clients, token)
    (said,) = (await dialogue(raw, text(message))).said
    assert said in expected


@pytest.mark.parametrize("field", ["token", "type"])
async def test_a_stranger_gets_a_documented_answer_for_each_document_as_a_field(url, clients, field):
    known = {"token": {"y": {BAD, "AUTH_FAILED"}, "n": {BAD, REQUIRED}, "i": {BAD, REQUIRED, "AUTH_FAILED"}},
             "type": {"y": {REQUIRED}, "n": {BAD, REQUIRED}, "i": {BAD, REQUIRED}}}[field]  # fmt: skip
    message = b'{"type":"auth","token":%b}' if field == "token" else b'{"token":"x","type":%b}'
    for name, document in DOCUMENTS.items():
        if not is_utf_8(document):
            continue
        raw = await opened(url, clients, None)
        await raw.send(b"".join(text(message % document)))
        error: dict[str, Any] = await raw.json("error")
        assert error["code"] in (known[name[0]] if len(document) < 16_000 else {REQUIRED}), (name, error)
        if error["code"] == "AUTH_FAILED":
            assert await raw.close_code() == 1008
        await raw.leave()
