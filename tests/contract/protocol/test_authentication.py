"""PROTOCOL.md section 2: authentication."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.contract.protocol.support import REGISTER, SUBSCRIBE
from tests.kit.clients import (
    DEADLINE_S,
    JPEG,
    PING,
    PONG,
    TEXT,
    eventually,
    http,
    new_name,
    now_ms,
    pack_frame,
    web_socket_frame,
)
from tests.kit.processes import running
from watchout.common.home_files import SESSION_STORE_FILE

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def watchout_loop() -> str:
    """Who is let in does not depend on the event loop."""
    return "uvloop"


@pytest.mark.parametrize("path", [REGISTER, SUBSCRIBE])
async def test_the_first_message_authenticates(url, alice, clients, path):
    open_one = clients.camera if path == REGISTER else clients.viewer
    client = await open_one(url, None)
    before = now_ms()
    await client.send("auth", token=alice, unknown={"field": 1})
    answer = await client.next()
    assert answer == {
        "type": "success", "message": "Authentication successful", "event": "authenticated",
        "timestamp": answer["timestamp"],
    }  # fmt: skip
    assert before - 1000 <= answer["timestamp"] <= now_ms() + 1000


@pytest.mark.parametrize("by", ["header", "query"])
async def test_a_token_at_the_upgrade_authenticates_without_a_message(url, alice, clients, by):
    camera = await clients.camera(url, alice, by)
    await camera.register()
    viewer = await clients.viewer(url, alice, by)
    assert await viewer.subscribe(camera.stream) == "streaming"
    assert [message["type"] for message in camera.heard] == ["success"]
    assert [message["type"] for message in viewer.heard] == ["success", "status"]


@pytest.mark.parametrize("by", ["header", "query"])
@pytest.mark.parametrize("token", ["wrong", "x" * 32, "%00", "%F0%9F%98%80", "a" * 4000])
async def test_a_wrong_token_at_the_upgrade_is_401_with_a_json_body(url, clients, by, token):
    raw = await clients.raw(url)
    if by == "header":
        await raw.send(raw.upgrade_head(SUBSCRIBE, f"Authorization: Bearer {token}"))
    else:
        await raw.send(raw.upgrade_head(f"{SUBSCRIBE}?token={token}"))
    answer = await raw.answer()
    assert (answer.status, answer.error) == (401, "AUTH_FAILED")
    assert token.encode() not in answer.body
    assert await raw.gone() == b""


async def test_a_client_of_websockets_sees_the_401(url, clients):
    for by in ("header", "query"):
        with pytest.raises(InvalidStatus) as caught:
            await clients.camera(url, "wrong", by)
        assert caught.value.response.status_code == 401


async def test_other_query_fields_and_an_empty_token_are_passed_over(url, alice, clients):
    for query in ("?x=1", "?token=", "?a=b&token=&c"):
        raw = await clients.raw(url)
        await raw.upgrade(SUBSCRIBE + query)
        await raw.send(web_socket_frame(TEXT, json.dumps({"type": "auth", "token": alice}).encode()))
        assert (await raw.json("success"))["message"] == "Authentication successful"


async def test_an_authorization_of_another_kind_is_passed_over(url, alice, clients):
    raw = await clients.raw(url)
    await raw.upgrade(f"{SUBSCRIBE}?token={alice}", "Authorization: Basic dXNlcjpwYXNz")
    await raw.send(web_socket_frame(TEXT, b'{"type":"subscribe","streamId":"s","consumes":["alert"]}'))
    await raw.json("success")


@pytest.mark.parametrize(
    "message",
    [
        '{"type":"register"}', '{"type":"nonsense"}', "no json", "[]", "", b"", pack_frame(JPEG), "x" * 60_000,
        "x" * 100_000, pack_frame(JPEG + bytes(1_000_000)),
        '{"type":"video-frame","data":"AAAA"}',
    ],
)  # fmt: skip
async def test_anything_but_auth_before_authentication_is_refused_and_the_socket_stays(url, alice, clients, message):
    camera = await clients.camera(url, None)
    await camera.send_raw(message)
    await camera.expect("error", code="AUTH_REQUIRED")
    await camera.send("auth", token=alice)
    await camera.expect("success")


@pytest.mark.parametrize("token", ["wrong", "", "x" * 32, "ü" * 20, "x" * 5000, "' or 1=1 --", "\0"])
async def test_a_wrong_token_in_the_first_message_closes_with_1008(url, clients, token):
    viewer = await clients.viewer(url, None)
    await viewer.send("auth", token=token)
    await viewer.expect("error", code="AUTH_FAILED")
    assert await viewer.closed() == 1008


async def test_a_token_that_is_no_text_is_an_invalid_message(url, alice, clients):
    viewer = await clients.viewer(url, None)
    for token in (None, 5, ["x"]):
        await viewer.send("auth", token=token)
        await viewer.expect("error", code="INVALID_MESSAGE")
    await viewer.send("auth")
    await viewer.expect("error", code="INVALID_MESSAGE")
    await viewer.send("auth", token=alice)
    await viewer.expect("success")


async def test_an_expired_token_authenticates_nobody(plain_watchout, clients):
    url, token = plain_watchout.url, plain_watchout.token(new_name("dora"))
    await clients.viewer(url, token)
    over = "2020-01-01T00:00:00.000Z"
    with contextlib.closing(sqlite3.connect(plain_watchout.home / SESSION_STORE_FILE)) as db, db:
        assert db.execute('update session set "expiresAt" = ? where token = ?', (over, token)).rowcount == 1

    async def refused() -> bool:
        return (await http(f"{url}/streams", token=token)).status == 401

    await eventually(refused)
    viewer = await clients.viewer(url, None)
    await viewer.send("auth", token=token)
    await viewer.expect("error", code="AUTH_FAILED")
    assert await viewer.closed() == 1008


@pytest.mark.parametrize("by", ["message", "header", "query"])
async def test_a_second_auth_is_an_error_and_the_socket_stays(url, alice, clients, by):
    viewer = await clients.viewer(url, alice, by)
    if by != "message":  # there the next one is the first
        await viewer.send("auth", token=alice)
        await viewer.expect("success", event="authenticated")
    for token in (alice, "wrong"):
        await viewer.send("auth", token=token)
        await viewer.expect("error", code="ALREADY_AUTHENTICATED")
    assert await viewer.subscribe(new_name()) == "offline"


async def test_who_does_not_authenticate_in_time_is_closed_with_1008(hasty_watchout, clients):
    viewer = await clients.viewer(hasty_watchout.url, None)
    camera = await clients.camera(hasty_watchout.url, None)
    async with asyncio.timeout(DEADLINE_S):
        with contextlib.suppress(ConnectionClosed):
            while True:  # which gives no more time
                await camera.send("register")
                await asyncio.sleep(0.1)
    await viewer.expect("error", code="AUTH_TIMEOUT")
    await camera.find("error", code="AUTH_TIMEOUT")
    for client in (viewer, camera):
        assert await client.closed() == 1008


async def test_who_authenticated_in_time_stays(hasty_watchout, clients):
    in_time = await clients.raw(hasty_watchout.url)
    auth = json.dumps({"type": "auth", "token": hasty_watchout.token()}).encode()
    await in_time.send(in_time.upgrade_head(SUBSCRIBE) + web_socket_frame(TEXT, auth))
    assert (await in_time.answer()).status == 101
    await in_time.json("success")
    late = await clients.viewer(hasty_watchout.url, None)
    assert await late.closed() == 1008
    await in_time.send(web_socket_frame(PING, b"still there?"))
    assert (await in_time.frame()).opcode == PONG


@pytest.mark.parametrize("by", ["message", "header", "query"])
async def test_a_session_store_that_is_down_is_not_the_clients_fault(watchout_loop, clients, by):
    environ = {"DATABASE_URL": "postgres://u:p@127.0.0.1:1/x"}
    with running(loop=watchout_loop, start=False, environ=environ, expected=["Connect call failed"]) as started:
        for name in ("router", "gateway"):
            started.start(name).wait_for_output(f"{name} ready")
        token = "t" * 32
        viewer = await clients.viewer(started.url, token if by != "message" else None, by)
        if by == "message":
            await viewer.send("auth", token=token)
        await viewer.expect("error", code="AUTH_UNAVAILABLE")
        assert await viewer.closed() == 1013
        assert (await http(f"{started.url}/streams", token=token)).error == "AUTH_UNAVAILABLE"
        answer = await http(f"{started.url}/health")
        assert (answer.status, answer.json["status"]) == (503, "unhealthy")
        assert answer.json["reason"]
        assert (await http(f"{started.url}/health/live")).status == 200
