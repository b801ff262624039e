"""The edge protocol, sentence by sentence (docs/protocol.md, sections 1 to 5), against the real processes.

The clients know the protocol and nothing of the code. All of it runs on uvloop and on asyncio.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from tests.kit.clients import (
    BINARY,
    CLOSE,
    CONTINUATION,
    JPEG,
    PING,
    PNG,
    PONG,
    TEXT,
    WEBP,
    Clients,
    RawSocket,
    base64_of,
    eventually,
    http,
    new_name,
    now_ms,
    pack_frame,
    unpack_frame,
    web_socket_frame,
)
from tests.kit.processes import BAD_WORDS, SERVICE_TOKEN, Watchout, running

pytestmark = pytest.mark.e2e

STATS_TOKEN = "stats-token-of-the-tests"
REGISTER = "/streams/register"
SUBSCRIBE = "/streams/subscribe"
MIB = 1 << 20


@pytest.fixture(scope="module", params=["uvloop", "asyncio"])
def watchout_loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def strict_watchout(watchout_loop: str) -> Iterator[Watchout]:
    """One with every limit near, other rights, and the stats behind a token."""
    environ = {
        "AUTH_TIMEOUT_S": "1",
        "HANDSHAKE_TIMEOUT_S": "1",
        "IDLE_TIMEOUT_S": "2",
        "MAX_MESSAGE_BYTES": "65536",
        "MESSAGE_RATE": "50",
        "BYTE_RATE": "200000",
        "ABUSE_LIMIT": "10",
        "ALERT_LANE_MESSAGES": "20",
        "MAX_CONNECTIONS_PER_USER": "5",
        "MAX_CONNECTIONS_PER_ADDRESS": "30",
        "STREAM_ACCESS": "authenticated",
        "STATS_TOKEN": STATS_TOKEN,
        "SERVICE_TOKEN": "",
    }
    with running(loop=watchout_loop, environ=environ) as started:
        yield started


@pytest.fixture
def url(plain_watchout: Watchout) -> Iterator[str]:
    """Of the plain one; the test that made it print a fault is the one that fails."""
    before = len(plain_watchout.output)
    yield plain_watchout.url
    said = plain_watchout.output[before:]
    assert not any(word in said for word in BAD_WORDS), said


@pytest.fixture
def alice(plain_watchout: Watchout) -> str:
    """The token of a user of this test."""
    return plain_watchout.token(new_name("alice"))


@pytest.fixture
def bob(plain_watchout: Watchout) -> str:
    """The token of another user."""
    return plain_watchout.token(new_name("bob"))


@pytest.fixture
def strict_user(strict_watchout: Watchout) -> str:
    return strict_watchout.token(new_name("carol"))


async def push(url: str, body: Any, token: str | None = SERVICE_TOKEN) -> list[dict[str, Any]]:
    """An alert, or a list of them, from the ML side."""
    answer = await http(f"{url}/alerts", method="POST", token=token, body=body)
    assert 200 <= answer.status < 300, answer
    return list(answer.json.get("accepted", []))


# ── section 1: paths ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_health_page_is_healthy_with_the_stats_and_the_metrics_of_each_stream(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    await camera.show()

    async def seen() -> dict[str, Any] | None:
        answer = await http(f"{url}/health")
        assert answer.status == 200
        body: dict[str, Any] = answer.json
        return body if any(m["streamId"] == stream and m["totalFrames"] == 1 for m in body["metrics"]) else None

    body = await eventually(seen)
    assert body["status"] == "healthy"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", body["timestamp"])
    assert body["stats"].keys() >= {
        "totalProducers", "totalVideoConsumers", "totalAlertConsumers", "totalConnections", "activeStreams", "streams",
    }  # fmt: skip
    (row,) = [m for m in body["metrics"] if m["streamId"] == stream]
    assert row.keys() == {"streamId", "fps", "totalFrames", "uptime"}


async def test_the_live_page_is_200_for_everybody(url):
    answer = await http(f"{url}/health/live")
    assert answer.status == 200


async def test_without_the_router_health_is_503_with_a_reason_and_live_stays_200(watchout, watchout_loop, clients):
    started = watchout(loop=watchout_loop, environ={"ROUTER_TIMEOUT_S": "0.5"})
    started.one("router").kill()

    async def unhealthy() -> Any:
        answer = await http(f"{started.url}/health")
        return answer if answer.status == 503 else None

    answer = await eventually(unhealthy)
    assert answer.json["status"] == "unhealthy"
    assert answer.json["reason"]
    assert (await http(f"{started.url}/health/live")).status == 200
    token = started.token()
    for path in ("/stats", "/streams"):
        assert (await http(f"{started.url}{path}", token=token)).error == "ROUTING_ERROR"
    camera = await clients.camera(started.url, token)
    await camera.send("register", produces=["video-frame"])
    await camera.expect("error", code="ROUTING_ERROR")
    viewer = await clients.viewer(started.url, token)
    await viewer.send("subscribe", streamId="cam", consumes=["video-frame"])
    await viewer.expect("error", code="ROUTING_ERROR")
    started.start("router")

    async def healthy() -> bool:
        return (await http(f"{started.url}/health")).status == 200

    await eventually(healthy, 10)
    await camera.register("cam")
    assert await viewer.subscribe("cam") == "streaming"


async def test_stats_count_cameras_viewers_and_connections(watchout, watchout_loop, clients):
    started = watchout(loop=watchout_loop)
    token = started.token()

    async def stats() -> dict[str, Any]:
        return (await http(f"{started.url}/stats")).json

    def counts(body: dict[str, Any]) -> tuple[int, ...]:
        names = ("totalProducers", "totalVideoConsumers", "totalAlertConsumers", "totalConnections")
        return tuple(body[name] for name in names)

    assert counts(await stats()) == (0, 0, 0, 0)
    camera = await clients.camera(started.url, token)
    await camera.register("one")
    quiet = await clients.camera(started.url, token)
    await quiet.register("two", produces=[])
    viewer = await clients.viewer(started.url, token)
    await viewer.subscribe("one")
    await viewer.subscribe("two", consumes=["alert"])
    other = await clients.viewer(started.url, token)
    await other.subscribe("one", consumes=["video-frame"])
    for _ in range(3):
        await camera.show()
    await camera.rest()
    body = await stats()
    assert counts(body) == (1, 2, 2, 4)
    assert sorted(body["activeStreams"]) == ["one", "two"]
    rows = {row["streamId"]: row for row in body["streams"]}
    assert rows["one"].keys() == {"streamId", "fps", "totalFrames", "uptime"}
    assert (rows["one"]["totalFrames"], rows["two"]["totalFrames"]) == (3, 0)
    assert isinstance(rows["one"]["uptime"], int)

    await viewer.send("unsubscribe", streamId="one")
    await viewer.rest()
    assert counts(await stats()) == (1, 1, 1, 4)
    await other.leave()
    await camera.leave()
    await quiet.leave()
    await viewer.leave()
    await eventually(lambda: counts(started.get("/stats")[1]) == (0, 0, 0, 0))
    assert (await stats())["activeStreams"] == []


async def test_total_frames_count_from_the_registration(url, alice, clients):
    stream = new_name()

    async def total() -> int:
        rows = (await http(f"{url}/stats")).json["streams"]
        return next((row["totalFrames"] for row in rows if row["streamId"] == stream), -1)

    for frames in (3, 2):
        camera = await clients.camera(url, alice)
        await camera.register(stream)
        for _ in range(frames):
            await camera.show()
        await camera.rest()
        assert await total() == frames
        await camera.leave()
        await eventually(lambda: total_is_gone(total))


async def total_is_gone(total: Callable[[], Any]) -> bool:
    return bool(await total() == -1)


async def test_stats_and_metrics_are_behind_the_token_that_the_setting_names(strict_watchout, strict_user):
    url = strict_watchout.url
    for path in ("/stats", "/metrics"):
        for token in (None, "wrong", strict_user):
            answer = await http(url + path, token=token)
            assert (answer.status, answer.error) == (401, "AUTH_FAILED")
        assert (await http(url + path, token=STATS_TOKEN)).status == 200
    assert (await http(f"{url}/health")).json["status"] == "healthy"


async def test_metrics_are_in_the_prometheus_text_format(url):
    answer = await http(f"{url}/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    sample = re.compile(
        r"[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-zA-Z_]+=\"[^\"]*\"(,[a-zA-Z_]+=\"[^\"]*\")*\})? [-+0-9.eNaInf]+"
    )
    for line in answer.body.decode().splitlines():
        assert line.startswith(("# HELP ", "# TYPE ")) or sample.fullmatch(line), line
    assert b"watchout_" in answer.body


async def test_the_list_of_streams_holds_those_that_the_caller_may_view(url, alice, bob, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    other = await clients.camera(url, bob)
    await other.register()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream)
    before = now_ms()
    await camera.show()
    await viewer.frame()
    (row,) = (await http(f"{url}/streams", token=alice)).json["streams"]
    assert row.keys() == {"id", "userId", "status", "fps", "viewers", "startedAt", "lastFrameAt"}
    assert (row["id"], row["status"], row["viewers"]) == (stream, "streaming", 1)
    assert abs(row["lastFrameAt"] - before) < 5000
    assert row["startedAt"] <= row["lastFrameAt"]
    by_query = await http(f"{url}/streams?token={alice}")
    assert [found["id"] for found in by_query.json["streams"]] == [stream]


@pytest.mark.parametrize("path", ["/streams", "/streams/cam/frame.jpg", "/alerts?streamId=cam"])
async def test_http_paths_for_users_want_a_token(url, path):
    assert (await http(url + path)).status == 401
    answer = await http(url + path, token="wrong")
    assert (answer.status, answer.error) == (401, "AUTH_FAILED")
    sign = "&" if "?" in path else "?"
    assert (await http(f"{url}{path}{sign}token=wrong")).error == "AUTH_FAILED"


@pytest.mark.parametrize(
    ("picture", "codec", "content_type"),
    [(JPEG, 1, "image/jpeg"), (PNG, 2, "image/png"), (WEBP, 3, "image/webp"), (JPEG + b"!", 0, "image/jpeg")],
)
async def test_the_newest_frame_comes_over_http_with_its_type_number_and_time(
    url, alice, clients, picture, codec, content_type
):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    page = f"{url}/streams/{stream}/frame.jpg"
    answer = await http(page, token=alice)
    assert (answer.status, answer.error) == (404, "NOT_FOUND")
    await camera.show_binary(JPEG)
    await camera.show_binary(picture, codec=codec, timestamp=1_729_943_200_123)
    await camera.rest()
    answer = await http(page, token=alice)
    assert (answer.status, answer.body) == (200, picture)
    assert (answer.headers["x-frame-id"], answer.headers["x-frame-time"]) == ("2", "1729943200123")
    if content_type is not None:
        assert answer.headers["content-type"] == content_type
    await camera.show(f"data:image/x;base64,{base64_of(picture)}", timestamp=5)
    await camera.rest()
    answer = await http(page, token=alice)
    assert (answer.status, answer.body, answer.headers["x-frame-id"]) == (200, picture, "3")
    if content_type is not None:
        assert answer.headers["content-type"] == content_type


async def test_the_newest_frame_and_the_alerts_of_somebody_elses_stream_are_not_to_be_had(url, alice, bob, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    await camera.show()
    await camera.rest()
    for path in (f"/streams/{stream}/frame.jpg", f"/alerts?streamId={stream}"):
        answer = await http(url + path, token=bob)
        assert answer.status in (403, 404)
        assert answer.error
        assert (await http(url + path, token=alice)).status == 200


async def test_a_frame_that_cannot_be_decoded_is_404_over_http_and_the_camera_is_told_once(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    for _ in range(2):
        await camera.show("no base64!")
        await camera.rest()
        assert (await http(f"{url}/streams/{stream}/frame.jpg", token=alice)).error == "NOT_FOUND"
    await eventually(lambda: [m["code"] for m in camera.heard if m["type"] == "error"].count("INVALID_MESSAGE") == 1)
    assert [m for m in await camera.rest() if m["type"] == "error"] == []


async def test_alerts_over_http_want_the_service_token(url, alice, strict_watchout):
    alert = {"streamId": "cam", "severity": "low", "message": "x"}
    for token in (None, "wrong", alice):
        answer = await http(f"{url}/alerts", method="POST", token=token, body=alert)
        assert answer.status == 401
        assert answer.error
    for token in (None, SERVICE_TOKEN):  # there the setting is empty
        assert (await http(f"{strict_watchout.url}/alerts", method="POST", token=token, body=alert)).status == 401


async def test_the_ml_side_pushes_one_alert_or_a_list_and_viewers_get_them_in_order(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream, consumes=["alert"])
    metadata = {"confidence": 0.93, "location": {"x": 1, "y": 2.5}, "objectType": "person", "näme": ["≠", None, True]}
    whole = {
        "type": "alert", "streamId": stream, "severity": "critical", "message": "Mann über Bord", "metadata": metadata,
        "timestamp": 1_729_943_200_000, "frameId": 17, "id": new_name("alert"),
    }  # fmt: skip
    await push(url, whole)
    assert await viewer.next() == whole
    before = now_ms()
    await push(url, [{"streamId": stream, "severity": "low", "message": str(n), "unknown": 1} for n in range(50)])
    came = [await viewer.expect("alert", streamId=stream, severity="low", message=str(n)) for n in range(50)]
    assert len({alert["id"] for alert in came} | {whole["id"]}) == 51
    assert all(before - 1000 <= alert["timestamp"] <= now_ms() for alert in came)
    assert all("frameId" not in alert for alert in came)


async def test_an_alert_of_a_known_id_is_not_broadcast_again(url, alice, clients):
    viewer = await clients.viewer(url, alice)
    stream = new_name()
    await viewer.subscribe(stream)
    alert = {"streamId": stream, "severity": "low", "message": "once", "id": new_name("alert")}
    for _ in range(3):
        await push(url, alert)
    await push(url, {**alert, "message": "after", "id": new_name("alert")})
    await viewer.expect("alert", message="once")
    await viewer.expect("alert", message="after")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"\xff", b"[" * 100_000, 5, None, "alert", {}, [[]],
        {"streamId": "cam", "severity": "deadly", "message": "x"},
        {"streamId": "cam", "severity": "low"},
        {"severity": "low", "message": "no stream"},
        {"streamId": "not a stream", "severity": "low", "message": "x"},
        {"streamId": "cam", "severity": "low", "message": 5},
        {"streamId": "cam", "severity": "low", "message": "x", "frameId": "1"},
        {"streamId": "cam", "severity": "low", "message": "x", "timestamp": -1},
        {"streamId": "cam", "severity": "low", "message": "x", "metadata": [1]},
        [{"streamId": "STREAM", "severity": "low", "message": "good"}, {"streamId": "STREAM", "severity": "bad"}],
    ],
)  # fmt: skip
async def test_an_alert_that_does_not_fit_is_refused_with_a_reason_and_never_broadcast(url, alice, clients, body):
    viewer = await clients.viewer(url, alice)
    stream = new_name()
    await viewer.subscribe(stream)
    if not isinstance(body, bytes):
        body = json.loads(json.dumps(body).replace("STREAM", stream))
    answer = await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=body if body is not None else b"null")
    assert (answer.status, answer.error) == (400, "INVALID_MESSAGE")
    await push(url, {"streamId": stream, "severity": "low", "message": "fence"})
    await viewer.expect("alert", message="fence")


async def test_a_body_over_the_limit_is_413(url):
    with contextlib.suppress(ConnectionError):  # the server may hang up on what it does not read
        answer = await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=b" " * (20 * MIB))
        assert (answer.status, bool(answer.error)) == (413, True)
    assert (await http(f"{url}/health/live")).status == 200


async def test_recent_alerts_are_kept_newest_last_and_chosen_by_time_and_number(url, alice):
    stream = new_name()
    base = now_ms() - 60_000
    for n in range(3):
        await push(url, {"streamId": stream, "severity": "low", "message": str(n), "timestamp": base + n})
    mark = await a_later_ms()
    for n in range(3, 5):
        alert = {"streamId": stream, "severity": "low", "message": str(n), "timestamp": base + n, "metadata": {"n": n}}
        await push(url, alert)

    async def kept(query: str = "") -> list[str]:
        answer = await http(f"{url}/alerts?streamId={stream}{query}", token=alice)
        assert answer.status == 200
        return [alert["message"] for alert in answer.json["alerts"]]

    assert await kept() == ["0", "1", "2", "3", "4"]
    assert await kept("&limit=2") == ["3", "4"]
    assert await kept(f"&since={mark}") == ["3", "4"]
    assert await kept(f"&since={mark}&limit=1") == ["4"]
    assert await kept(f"&since={mark}.734") == ["3", "4"]  # `time.time() * 1000`
    assert await kept(f"&since={mark + 60_000}") == []
    (alert,) = (await http(f"{url}/alerts?streamId={stream}&limit=1", token=alice)).json["alerts"]
    assert alert == {
        "type": "alert", "id": alert["id"], "streamId": stream, "severity": "low", "message": "4",
        "timestamp": base + 4, "metadata": {"n": 4},
    }  # fmt: skip
    for query in ("&since=x", "&since=-1", "&limit=0", "&limit=x"):
        assert (await http(f"{url}/alerts?streamId={stream}{query}", token=alice)).status == 400
    for bad in ("streamId=", "streamId=a%20b", "streamId=" + "x" * 129):
        answer = await http(f"{url}/alerts?{bad}", token=alice)
        assert (answer.status, bool(answer.error)) == (400, True)


async def a_later_ms() -> int:
    """A time after everything so far and before everything that comes."""
    mark = now_ms() + 1
    await eventually(lambda: now_ms() >= mark)
    return mark


async def test_the_root_is_a_short_plain_text(url):
    answer = await http(f"{url}/")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert 0 < len(answer.body) < 4000


@pytest.mark.parametrize(
    "path", ["/nothing", "/streams/", "/streams/cam", "/health/x", "/%2e%2e/etc", "/streams//frame.jpg", "//", "/ws"]
)
async def test_other_paths_are_404_with_a_json_body(url, path):
    answer = await http(url + path)
    assert answer.status == 404
    assert answer.error


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/", {"GET"}), ("/health", {"GET"}), ("/health/live", {"GET"}), ("/stats", {"GET"}), ("/metrics", {"GET"}),
        ("/streams", {"GET"}), ("/streams/cam/frame.jpg", {"GET"}), ("/alerts", {"GET", "POST"}), (REGISTER, {"GET"}),
        (SUBSCRIBE, {"GET"}),
    ],
)  # fmt: skip
async def test_a_wrong_method_is_405_with_allow(url, path, allowed):
    for method in {"POST", "PUT", "DELETE", "PATCH", "OPTIONS"} - allowed:
        answer = await http(url + path, method=method)
        assert answer.status == 405, (method, answer)
        assert answer.error
        assert {word.strip() for word in answer.headers["allow"].split(",")} - {"HEAD"} == allowed


@pytest.mark.parametrize("path", [REGISTER, SUBSCRIBE])
async def test_a_websocket_path_without_an_upgrade_is_refused_with_a_json_body(url, path):
    answer = await http(url + path)
    assert answer.status in (400, 426)
    assert answer.error


@pytest.mark.parametrize("path", ["/", "/streams", "/streams/other", "/streams/cam/frame.jpg", "/nothing"])
async def test_an_upgrade_on_another_path_is_no_websocket(url, clients, path):
    raw = await clients.raw(url)
    await raw.send(raw.upgrade_head(path))
    answer = await raw.answer()
    assert answer.status != 101
    assert answer.status < 500


# ── section 2: authentication ────────────────────────────────────────────────────────────────────────────────────


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
    url, token = plain_watchout.url, plain_watchout.token(new_name("dora"), lifetime_s=1.5)
    await clients.viewer(url, token)

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


async def test_who_does_not_authenticate_in_time_is_closed_with_1008(strict_watchout, clients):
    viewer = await clients.viewer(strict_watchout.url, None)
    camera = await clients.camera(strict_watchout.url, None)
    await camera.send("register")
    await camera.expect("error", code="AUTH_REQUIRED")
    began = time.monotonic()
    for client in (viewer, camera):
        await client.expect("error", code="AUTH_TIMEOUT")
        assert await client.closed() == 1008
    assert time.monotonic() - began < 3


async def test_who_authenticated_in_time_stays(strict_watchout, strict_user, clients):
    viewer = await clients.viewer(strict_watchout.url, strict_user)
    late = await clients.viewer(strict_watchout.url, None)
    assert await late.closed() == 1008
    await viewer.rest()


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


# ── section 3: registering, frames ───────────────────────────────────────────────────────────────────────────────


async def test_a_generated_stream_id_stands_in_the_answer_and_in_its_text(url, alice, clients):
    ids = set()
    for _ in range(3):
        camera = await clients.camera(url, alice)
        await camera.send("register", clientType="mobile", produces=["video-frame"], consumes=["alert"])
        answer = await camera.next()
        stream = answer["streamId"]
        assert answer == {
            "type": "success", "message": f"Registration successful. Stream ID: {stream}", "event": "registered",
            "streamId": stream,
            "timestamp": answer["timestamp"],
        }  # fmt: skip
        cut_out = re.search(r"Stream ID: (stream_\w+)", answer["message"], re.ASCII)
        assert cut_out is not None
        assert cut_out[1] == stream
        ids.add(stream)
    assert len(ids) == 3


@pytest.mark.parametrize("stream", ["a", "x" * 128, "A-Z_09.b:c", "-", ".", "..", ":"])
async def test_a_client_may_choose_a_stream_id_of_these_characters(url, alice, clients, stream):
    camera = await clients.camera(url, alice)
    assert await camera.register(stream) == stream
    viewer = await clients.viewer(url, alice)
    assert await viewer.subscribe(stream) == "streaming"
    await camera.leave()
    await viewer.status("offline", streamId=stream)


BAD_IDS = ["", "x" * 129, "a b", "a/b", "a\n", "\n", "ä", "a\0", "%61", "a*", 5, [], {"a": 1}]


async def test_a_bad_stream_id_is_an_invalid_message_and_the_socket_stays(url, alice, clients):
    camera = await clients.camera(url, alice)
    viewer = await clients.viewer(url, alice)
    for stream in BAD_IDS:
        await camera.send("register", streamId=stream)
        await camera.expect("error", code="INVALID_MESSAGE")
        for kind in ("subscribe", "unsubscribe"):
            await viewer.send(kind, streamId=stream)
            await viewer.expect("error", code="INVALID_MESSAGE")
    await viewer.send("subscribe")
    await viewer.expect("error", code="INVALID_MESSAGE")
    await camera.register()
    for stream in BAD_IDS:
        await camera.send("video-frame", streamId=stream, data="AAAA")
        await camera.expect("error", code="INVALID_MESSAGE")


async def test_json_frames_reach_json_viewers_with_the_data_unchanged_to_the_byte(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream)
    datas = [
        base64_of(JPEG), f"data:image/jpeg;base64,{base64_of(JPEG)}", "", "not base64 at all!", 'ü≠😀\\"\n\u2028',
        "A" * 300_000, "====",
    ]  # fmt: skip
    for n, data in enumerate(datas, 1):
        await camera.show(data, streamId=stream, timestamp=1000 + n) if data else await camera.send(
            "video-frame", data=""
        )
        frame = await viewer.frame()
        assert frame["data"] == data
        assert (frame["streamId"], frame["frameId"]) == (stream, n)
        if data:
            assert frame["timestamp"] == 1000 + n
            assert frame.keys() == {"type", "streamId", "data", "timestamp", "frameId"}


async def test_escapes_in_the_data_reach_json_viewers_as_they_came(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    raw = await clients.raw(url)
    await raw.upgrade(f"{SUBSCRIBE}?token={alice}")
    wish = json.dumps({"type": "subscribe", "streamId": stream, "consumes": ["video-frame"]})
    await raw.send(web_socket_frame(TEXT, wish.encode()))
    await raw.json("status")
    token = r'"\/9j\/\u0034AAQ\/\u00e4="'
    await camera.send_raw(f'{{"timestamp" : 7, "data" :{token} ,"type":"video-frame", "more":[1,{{}}]}}')
    frame = await raw.frame()
    assert token.encode() in frame.payload
    assert json.loads(frame.payload)["timestamp"] == 7


async def test_where_a_camera_leaves_the_timestamp_out_the_server_puts_its_own(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    viewers = [await clients.viewer(url, alice) for _ in range(2)]
    for viewer, form in zip(viewers, ("json", "binary"), strict=True):
        await viewer.subscribe(stream, format=form)
    before = now_ms()
    await camera.show()
    await camera.show_binary(timestamp=0)
    for viewer in viewers:
        for _ in range(2):
            assert before - 1000 <= (await viewer.frame())["timestamp"] <= now_ms() + 1000


@pytest.mark.parametrize("sent", ["json", "data", "binary"])
@pytest.mark.parametrize("picture", [JPEG, b"\xff\xd8\xff", PNG + secrets.token_bytes(100_001)])
async def test_a_viewer_gets_the_format_that_it_asked_for_whatever_the_camera_sends(url, alice, clients, sent, picture):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    json_viewer = await clients.viewer(url, alice)
    await json_viewer.subscribe(stream, format="json")
    binary_viewer = await clients.viewer(url, alice)
    await binary_viewer.subscribe(stream, format="binary")
    data = ("data:image/jpeg;base64," if sent == "data" else "") + base64_of(picture)
    for n in (1, 2):
        if sent == "binary":
            await camera.show_binary(picture, timestamp=1000 + n, codec=1 if picture is JPEG else 0)
        else:
            await camera.show(data, timestamp=1000 + n)
        frame = await json_viewer.frame()
        assert (frame["data"], frame["frameId"], frame["timestamp"], frame["streamId"]) == (data, n, 1000 + n, stream)
        frame = await binary_viewer.frame()
        assert (frame["picture"], frame["frameId"], frame["timestamp"]) == (picture, n, 1000 + n)
        assert frame["streamId"] == stream
        if picture is JPEG:
            assert frame["codec"] == 1


async def test_json_and_binary_frames_may_be_mixed(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream, format="binary")
    for n in range(1, 21):
        await (camera.show_binary if n % 3 else camera.show)()
        assert (await viewer.frame(picture=JPEG))["frameId"] == n


async def test_data_that_cannot_be_decoded_reaches_json_viewers_only_and_the_camera_is_told_once(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    json_viewer = await clients.viewer(url, alice)
    await json_viewer.subscribe(stream)
    binary_viewer = await clients.viewer(url, alice)
    await binary_viewer.subscribe(stream, format="binary")
    bad = ["$$$", "data:image/jpeg;base64,$$$", "data:no-comma", "A", ""]
    for n, data in enumerate(bad, 1):
        await camera.send("video-frame", data=data)
        assert (await json_viewer.frame())["data"] == data
        if n == 1:
            await camera.expect("error", code="INVALID_MESSAGE")
    await camera.show()
    assert (await binary_viewer.frame())["frameId"] == len(bad) + 1
    await json_viewer.frame(frameId=len(bad) + 1)
    # What the router might still send to the camera comes before this alert.
    await push(url, {"streamId": stream, "severity": "low", "message": "fence"})
    await json_viewer.find("alert", message="fence")
    assert await camera.rest() == []


async def test_a_frame_for_another_stream_is_unauthorized_and_nobody_gets_it(url, alice, clients):
    camera, other = await clients.camera(url, alice), await clients.camera(url, alice)
    stream, elsewhere = await camera.register(), await other.register()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(elsewhere)
    await camera.show(streamId=elsewhere)
    await camera.expect("error", code="UNAUTHORIZED")
    await camera.show_binary(stream_id=elsewhere)
    await camera.expect("error", code="UNAUTHORIZED")
    await camera.show(streamId="no-such-stream")
    await camera.expect("error", code="UNAUTHORIZED")
    await camera.show(streamId=stream)
    await camera.show_binary(stream_id=stream)
    assert await camera.rest() == []
    await other.show()
    assert (await viewer.frame())["frameId"] == 1


async def test_a_frame_before_the_registration_is_refused(url, alice, clients):
    camera = await clients.camera(url, alice)
    for fields in ({}, {"streamId": new_name()}):
        await camera.show(**fields)
        assert (await camera.expect("error"))["code"] in ("INVALID_MESSAGE", "UNAUTHORIZED")
    await camera.show_binary()
    assert (await camera.expect("error"))["code"] in ("INVALID_MESSAGE", "UNAUTHORIZED")
    await camera.register()
    await camera.show()
    assert await camera.rest() == []


async def test_register_and_frames_are_for_the_register_path_and_subscribe_for_the_other(url, alice, clients):
    camera, viewer = await clients.camera(url, alice), await clients.viewer(url, alice)
    stream = await camera.register()
    for kind in ("subscribe", "unsubscribe"):
        await camera.send(kind, streamId=stream)
        await camera.expect("error", code="INVALID_MESSAGE")
    await camera.send("ack", streamId=stream, frameId=1)
    await camera.expect("error", code="INVALID_MESSAGE")
    await viewer.send("register", produces=["video-frame"])
    await viewer.expect("error", code="INVALID_MESSAGE")
    await viewer.send("video-frame", streamId=stream, data="AAAA")
    await viewer.expect("error", code="INVALID_MESSAGE")
    await viewer.send_raw(pack_frame(JPEG, stream_id=stream))
    await viewer.expect("error", code="INVALID_MESSAGE")
    await viewer.send("alert", streamId=stream, severity="low", message="x")
    await viewer.expect("error", code="INVALID_MESSAGE")
    assert await viewer.subscribe(stream) == "streaming"


@pytest.mark.parametrize("early", [False, True], ids=["after the handshake", "with the handshake"])
async def test_messages_may_be_sent_without_waiting_for_the_answers(url, alice, clients, early):
    raw = await clients.raw(url)
    said: list[Any] = [{"type": "auth", "token": alice}, {"type": "register", "produces": ["video-frame", "alert"]}]
    said += [{"type": "video-frame", "data": base64_of(JPEG)}] * 3
    stream = new_name()
    said[1]["streamId"] = stream
    text = b"".join(web_socket_frame(TEXT, json.dumps(message).encode()) for message in said)
    await raw.send(raw.upgrade_head(REGISTER) + (text if early else b""))
    assert (await raw.answer()).status == 101
    if not early:
        await raw.send(text)
    assert (await raw.json("success"))["message"] == "Authentication successful"
    assert (await raw.json("success"))["streamId"] == stream
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream)
    assert (await viewer.frame())["frameId"] == 3


async def test_unknown_fields_are_ignored(url, alice, clients):
    more = {"unknown": {"deep": [1, None]}, "version": 9, "": 0, "streamid": "x", "Type": 1}
    camera, viewer = await clients.camera(url, alice), await clients.viewer(url, alice)
    stream = await camera.register(new_name(), **more)
    await viewer.subscribe(stream, **more)
    await camera.show(**more)
    frame = await viewer.frame()
    assert frame["frameId"] == 1
    await viewer.send("ack", streamId=stream, frameId=1, **more)
    await viewer.send("unsubscribe", streamId=stream, **more)
    await viewer.expect("success", event="unsubscribed", streamId=stream)
    assert await viewer.rest() == []


async def test_what_is_no_message_is_an_error_and_the_socket_stays(url, alice, clients):
    camera = await clients.camera(url, alice)
    await camera.register()
    invalid = [
        "", "no json", "{", "[]", "5", "null", '"text"', "{}", '{"type":5}', '{"type":null}', '{"type":"register",}',
        "[" * 100_000, '{"type":"register","produces":"video-frame"}', '{"type":"register","consumes":[1]}',
        '{"type":"video-frame"}', '{"type":"video-frame","data":5}', '{"type":"video-frame","data":null}',
        '{"type":"video-frame","data":["a"]}', '{"type":"video-frame","data":"A","timestamp":"now"}',
        '{"type":"video-frame","data":"A","timestamp":-1}', '{"type":"video-frame","data":"A","timestamp":1e999}',
        '{"type":"video-frame","data":"A}', '{"type":"video-frame","data":NaN}', "\ufeff{}", "\0",
        '{"type":"alert","message":"x"}', '{"type":"alert","severity":"low"}', '{"type":"video-frame","data":"a\nb"}',
    ]  # fmt: skip
    for text in invalid:
        await camera.send_raw(text)
        error = await camera.next()
        assert (error["type"], error["code"]) == ("error", "INVALID_MESSAGE"), (text[:50], error)
        assert error["message"]
        assert isinstance(error["timestamp"], int)
    for kind in ("nonsense", "", "Register", "video_frame", "status", "x" * 1000, "\x1b[31m"):
        await camera.send(kind)
        await camera.expect("error", code="UNKNOWN_MESSAGE_TYPE")
    await camera.show()
    assert await camera.rest() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "jpeg"}, {"format": 1}, {"maxFps": 0}, {"maxFps": -1}, {"maxFps": "5"}, {"lastFrame": 1},
        {"alertsSince": "x"}, {"window": 0}, {"window": -1}, {"window": "1"}, {"consumes": "video-frame"},
        {"consumes": [5]},
    ],
)  # fmt: skip
async def test_a_subscription_with_a_field_of_a_wrong_type_is_an_invalid_message(url, alice, clients, fields):
    viewer = await clients.viewer(url, alice)
    await viewer.send("subscribe", **{"streamId": "cam", "consumes": ["video-frame"], **fields})
    await viewer.expect("error", code="INVALID_MESSAGE")
    assert await viewer.subscribe(new_name()) == "offline"


async def test_produces_and_consumes_may_be_left_out(url, alice, clients):
    camera, viewer = await clients.camera(url, alice), await clients.viewer(url, alice)
    stream = new_name()
    await viewer.subscribe(stream)
    await camera.send("register", streamId=stream)
    await camera.expect("success", streamId=stream)
    await viewer.status("online")
    await camera.show()
    assert (await camera.expect("error"))["code"] in ("UNAUTHORIZED", "INVALID_MESSAGE")
    silent = await clients.viewer(url, alice)
    await silent.send("subscribe", streamId=stream)
    await silent.expect("success", streamId=stream)
    await silent.expect("status", status="online")
    await camera.leave()
    await viewer.status("offline")
    assert await silent.rest() == []


async def test_status_reaches_everybody_who_consumes_anything(url, alice, clients):
    stream = new_name()
    viewers = []
    for consumes in (["video-frame"], ["alert"], ["video-frame", "alert"]):
        viewer = await clients.viewer(url, alice)
        assert await viewer.subscribe(stream, consumes=consumes) == "offline"
        viewers.append(viewer)
    camera = await clients.camera(url, alice)
    await camera.register(stream)
    for viewer in viewers:
        await viewer.expect("status", status="streaming", streamId=stream)
    await camera.leave()
    for viewer in viewers:
        await viewer.expect("status", status="offline", streamId=stream)


async def test_a_viewer_gets_only_what_it_consumes(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    video, alerts = await clients.viewer(url, alice), await clients.viewer(url, alice)
    await video.subscribe(stream, consumes=["video-frame"])
    await alerts.subscribe(stream, consumes=["alert"])
    await camera.show()
    await push(url, {"streamId": stream, "severity": "high", "message": "x"})
    await alerts.expect("alert")
    await video.expect("video-frame", frameId=1)
    await camera.show()
    await video.expect("video-frame", frameId=2)
    assert await alerts.rest() == []


async def test_several_streams_come_over_one_socket_until_they_are_unsubscribed(url, alice, clients):
    cameras = [await clients.camera(url, alice) for _ in range(3)]
    streams = [await camera.register() for camera in cameras]
    viewer = await clients.viewer(url, alice)
    for stream in streams:
        await viewer.subscribe(stream)
    for camera in cameras:
        await camera.show()
    assert sorted([(await viewer.frame())["streamId"] for _ in streams]) == sorted(streams)
    await viewer.send("unsubscribe", streamId=streams[0])
    await viewer.send("unsubscribe", streamId=new_name())
    await viewer.rest()
    for camera in cameras:
        await camera.show()
        await camera.rest()
    came = [message["streamId"] for message in await viewer.rest() if message["type"] == "video-frame"]
    assert sorted(came) == sorted(streams[1:])
    await cameras[0].leave()
    await cameras[1].leave()
    await viewer.status("offline", streamId=streams[1])


async def test_a_viewer_waits_for_a_stream_that_does_not_exist_yet(url, alice, clients):
    stream = new_name()
    viewer = await clients.viewer(url, alice)
    assert await viewer.subscribe(stream) == "offline"
    camera = await clients.camera(url, alice)
    await camera.register(stream)
    await camera.show()
    await viewer.expect("status", status="streaming")
    await viewer.expect("video-frame", frameId=1)


async def test_subscribing_again_replaces_the_subscription(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream)
    await viewer.subscribe(stream, format="binary")
    await camera.show()
    assert (await viewer.frame())["picture"] == JPEG
    await camera.rest()
    assert await viewer.rest() == []


@pytest.mark.parametrize("format", ["json", "binary"])
async def test_the_newest_frame_comes_at_once_unless_it_is_not_wanted(url, alice, clients, format):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    for _ in range(3):
        await camera.show()
    await camera.rest()
    viewer = await clients.viewer(url, alice)
    assert await viewer.subscribe(stream, format=format) == "streaming"
    await viewer.expect("video-frame", frameId=3)
    unwilling = await clients.viewer(url, alice)
    await unwilling.subscribe(stream, format=format, lastFrame=False)
    assert await unwilling.rest() == []
    await camera.show()
    await unwilling.expect("video-frame", frameId=4)


async def test_no_more_frames_come_than_the_viewer_wants_per_second(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    slow, all_of_them = await clients.viewer(url, alice), await clients.viewer(url, alice)
    await slow.subscribe(stream, maxFps=5, lastFrame=False)
    await all_of_them.subscribe(stream)
    async with camera.streaming(fps=30):
        await eventually(lambda: len(all_of_them.frames) >= 60, 10)
    spent_s = all_of_them.heard_at[-1] - all_of_them.heard_at[1]
    assert 5 * spent_s * 0.6 <= len(slow.frames) <= 5 * spent_s + 2


async def test_the_window_holds_frames_back_until_the_viewer_acknowledges(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream, window=2)
    for _ in range(6):
        await camera.show()
    await camera.rest()
    assert [message["frameId"] for message in await viewer.rest()] == [1, 2]
    await viewer.send("ack", streamId=stream, frameId=2)
    await viewer.expect("video-frame", frameId=6)
    await camera.show()
    await viewer.expect("video-frame", frameId=7)
    await camera.show()
    await camera.rest()
    assert await viewer.rest() == []
    await viewer.send("ack", streamId=stream, frameId=6)
    await viewer.expect("video-frame", frameId=8)


async def test_a_viewer_that_stops_acknowledging_gets_one_frame_a_second(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    viewer, all_of_them = await clients.viewer(url, alice), await clients.viewer(url, alice)
    await viewer.subscribe(stream, window=1)
    await all_of_them.subscribe(stream)
    async with camera.streaming(fps=20):
        await eventually(lambda: len(all_of_them.frames) >= 65, 10)
    assert 3 <= len(viewer.frames) <= 5
    gaps = [late - early for early, late in zip(viewer.heard_at[3:], viewer.heard_at[4:], strict=False)]
    assert all(0.8 < gap < 1.6 for gap in gaps), gaps


async def test_alerts_since_a_time_are_replayed_before_the_live_ones(url, alice, clients):
    stream = new_name()
    for n in range(3):
        await push(url, {"streamId": stream, "severity": "low", "message": str(n)})
    mark = await a_later_ms()
    for n in range(3, 6):
        await push(url, {"streamId": stream, "severity": "low", "message": str(n)})
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream, alertsSince=mark)
    await push(url, {"streamId": stream, "severity": "low", "message": "live"})
    for text in ("3", "4", "5", "live"):
        await viewer.expect("alert", message=text)
    without = await clients.viewer(url, alice)
    await without.subscribe(stream)
    await push(url, {"streamId": stream, "severity": "low", "message": "later"})
    await without.expect("alert", message="later")


async def test_an_alert_of_a_camera_reaches_its_viewers_and_itself(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register(produces=["video-frame", "alert"], consumes=["alert"])
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream)
    own = {
        "streamId": stream,
        "severity": "high",
        "message": "help",
        "metadata": {"a": [1]},
        "timestamp": 1_700_000_000_000,
    }
    await camera.send("alert", **own)
    came = await viewer.expect("alert", **own)
    assert came["id"]
    assert await camera.find("alert") == came
    await camera.send("alert", severity="low", message="without a stream id")
    assert (await viewer.expect("alert", streamId=stream))["id"] != came["id"]
    assert abs((await camera.find("alert"))["timestamp"] - now_ms()) < 10_000
    for n in range(20):
        await camera.send("alert", streamId=stream, severity="low", message=str(n))
    for n in range(20):
        await viewer.expect("alert", message=str(n))


async def test_an_alert_is_for_the_cameras_own_stream_and_only_if_it_said_so(url, alice, clients):
    camera = await clients.camera(url, alice)
    await camera.send("alert", severity="low", message="too soon")
    assert (await camera.expect("error"))["code"] in ("UNAUTHORIZED", "INVALID_MESSAGE")
    stream = await camera.register(produces=["alert"])
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream)
    other = await clients.camera(url, alice)
    elsewhere = await other.register()
    await camera.send("alert", streamId=elsewhere, severity="low", message="x")
    await camera.expect("error", code="UNAUTHORIZED")
    await other.send("alert", streamId=elsewhere, severity="low", message="x")
    await other.expect("error", code="UNAUTHORIZED")
    for bad in ({"severity": "deadly"}, {"severity": 5}, {"message": 5}, {"metadata": "x"}, {"frameId": -1}):
        await camera.send("alert", **{"streamId": stream, "severity": "low", "message": "x", **bad})
        await camera.expect("error", code="INVALID_MESSAGE")
    await camera.send("alert", severity="critical", message="fence")
    await viewer.expect("alert", message="fence")


async def test_a_camera_that_does_not_consume_alerts_gets_none(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream)
    await push(url, {"streamId": stream, "severity": "low", "message": "x"})
    await viewer.expect("alert")
    assert await camera.rest() == []


async def test_the_same_user_takes_a_stream_over_and_viewers_stay(url, alice, clients):
    old, viewer = await clients.camera(url, alice), await clients.viewer(url, alice)
    stream = await old.register(new_name())
    await viewer.subscribe(stream)
    for n in (1, 2, 3):
        await old.show()
        await viewer.frame(frameId=n)
    new = await clients.camera(url, alice)
    await new.register(stream)
    await old.find("error", code="STREAM_TAKEN_OVER")
    assert await old.closed() == 4501
    ids = [3]
    for _ in range(3):
        await new.show()
        ids.append((await viewer.frame())["frameId"])
    assert ids == sorted(set(ids))
    assert viewer.open
    assert "offline" not in viewer.statuses
    await new.leave()
    await viewer.status("offline")


async def test_take_overs_in_a_row_leave_one_camera(url, alice, clients):
    stream = new_name()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream)
    cameras = [await clients.camera(url, alice) for _ in range(8)]
    await asyncio.gather(*(camera.send("register", streamId=stream, produces=["video-frame"]) for camera in cameras))
    await eventually(lambda: sum(not camera.open for camera in cameras) == 7)
    assert [camera.connection.close_code for camera in cameras].count(4501) == 7
    (left,) = [camera for camera in cameras if camera.open]
    await left.show()
    await viewer.frame()
    assert (await http(f"{url}/stats")).json["activeStreams"].count(stream) == 1


async def test_frame_ids_begin_at_1_and_never_fall_when_the_camera_returns(url, alice, clients):
    stream = new_name()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream)
    ids: list[int] = []
    for turn in range(3):
        camera = await clients.camera(url, alice)
        await camera.register(stream)
        for _ in range(4):
            await camera.show_binary(frame_id=1)
            ids.append((await viewer.frame())["frameId"])
        assert ids[-4:] == list(range(ids[-4], ids[-4] + 4))
        if turn == 1:
            camera.cut()
        else:
            await camera.leave()
        await viewer.status("offline")
    assert ids[:4] == [1, 2, 3, 4]
    assert ids == sorted(set(ids))


async def test_frame_ids_do_not_fall_either_when_nobody_watched_meanwhile(url, alice, clients):
    stream = new_name()
    last = 0
    for _ in range(3):
        camera = await clients.camera(url, alice)
        await camera.register(stream)
        for _ in range(3):
            await camera.show()
        await camera.rest()
        found = int((await http(f"{url}/streams/{stream}/frame.jpg", token=alice)).headers["x-frame-id"])
        assert found > last
        last = found
        await camera.leave()
        await eventually(lambda: stream_is_gone(url, stream))


async def stream_is_gone(url: str, stream: str) -> bool:
    return stream not in (await http(f"{url}/stats")).json["activeStreams"]


async def test_another_user_neither_registers_nor_watches_the_stream(url, alice, bob, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register(new_name())
    thief = await clients.camera(url, bob)
    await thief.send("register", streamId=stream, produces=["video-frame"])
    await thief.expect("error", code="UNAUTHORIZED")
    spy = await clients.viewer(url, bob)
    await spy.send("subscribe", streamId=stream, consumes=["video-frame", "alert"])
    await spy.expect("error", code="UNAUTHORIZED")
    await camera.show()
    await push(url, {"streamId": stream, "severity": "low", "message": "x"})
    assert await camera.rest() == []
    assert await spy.rest() == []
    assert await thief.register(new_name())


async def test_who_waits_for_a_stream_that_becomes_another_users_loses_it(url, alice, bob, clients):
    stream = new_name()
    spy, viewer = await clients.viewer(url, bob), await clients.viewer(url, alice)
    assert await spy.subscribe(stream) == "offline"
    assert await viewer.subscribe(stream) == "offline"
    camera = await clients.camera(url, alice)
    await camera.register(stream)
    await spy.expect("error", code="UNAUTHORIZED")
    await camera.show()
    await viewer.frame()
    assert await spy.rest() == []


async def test_with_access_for_authenticated_users_others_may_view_but_not_register(
    strict_watchout, strict_user, clients
):
    other = strict_watchout.token(new_name("dave"))
    camera = await clients.camera(strict_watchout.url, strict_user)
    stream = await camera.register()
    viewer = await clients.viewer(strict_watchout.url, other)
    assert await viewer.subscribe(stream) == "streaming"
    await camera.show()
    await viewer.frame(frameId=1)
    assert (await http(f"{strict_watchout.url}/streams/{stream}/frame.jpg", token=other)).status == 200
    listed = (await http(f"{strict_watchout.url}/streams", token=other)).json["streams"]
    assert stream in [row["id"] for row in listed]
    thief = await clients.camera(strict_watchout.url, other)
    await thief.send("register", streamId=stream, produces=["video-frame"])
    await thief.expect("error", code="UNAUTHORIZED")


async def test_the_tokens_stand_in_no_log(plain_watchout, clients):
    token = plain_watchout.token(new_name("erna"))
    for by in ("message", "header", "query"):
        await (await clients.viewer(plain_watchout.url, token, by)).rest()
    await http(f"{plain_watchout.url}/streams?token={token}")
    await http(f"{plain_watchout.url}/no/path?token={token}")
    wrong = "wrong-" + secrets.token_hex(8)
    with pytest.raises(InvalidStatus):
        await clients.viewer(plain_watchout.url, wrong, "query")
    raw = await clients.raw(plain_watchout.url)
    await raw.send(f"GET /streams?token={token} HTTP/9.9\r\n\r\n".encode())
    await raw.gone()
    output = plain_watchout.output
    assert token not in output
    assert wrong not in output
    assert SERVICE_TOKEN not in output


# ── section 4: status, errors, closing ───────────────────────────────────────────────────────────────────────────


async def test_the_status_goes_streaming_online_streaming_offline(url, alice, clients):
    stream = new_name()
    viewer = await clients.viewer(url, alice)
    assert await viewer.subscribe(stream) == "offline"
    camera = await clients.camera(url, alice)
    await camera.register(stream)
    status = await viewer.next()
    assert status == {"type": "status", "streamId": stream, "status": "streaming", "timestamp": status["timestamp"]}
    assert abs(status["timestamp"] - now_ms()) < 10_000
    await camera.show()
    began = time.monotonic()
    await viewer.frame()
    await viewer.expect("status", timeout_s=9, status="online")
    assert time.monotonic() - began > 4.5
    late = await clients.viewer(url, alice)
    assert await late.subscribe(stream) == "online"
    await camera.show()
    await viewer.expect("status", status="streaming")
    await viewer.frame()
    camera.cut()
    await viewer.expect("status", status="offline")


async def test_every_message_has_a_type_and_a_timestamp(url, alice, clients):
    camera, viewer = await clients.camera(url, alice), await clients.viewer(url, alice)
    stream = await camera.register()
    await viewer.subscribe(stream)
    await camera.show()
    await push(url, {"streamId": stream, "severity": "low", "message": "x"})
    await viewer.find("alert")
    await viewer.rest()
    assert {message["type"] for message in viewer.heard} == {"success", "status", "video-frame", "alert", "error"}
    assert all(isinstance(message["timestamp"], int) for message in viewer.heard + camera.heard)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"W", pack_frame(JPEG)[:17], pack_frame(b""), pack_frame(JPEG, magic=0x58), pack_frame(JPEG, version=2),
        pack_frame(JPEG, kind=2), pack_frame(JPEG, flags=1), pack_frame(JPEG, codec=9),
        pack_frame(JPEG, stream_id=b"a b"), pack_frame(JPEG, stream_id=b"\xff"), pack_frame(b"", stream_id="x" * 128),
        pack_frame(JPEG, stream_id="x" * 129), bytes(100),
    ],
)  # fmt: skip
async def test_a_bad_binary_header_is_an_invalid_message_and_the_socket_stays(url, alice, clients, data):
    camera = await clients.camera(url, alice)
    await camera.register()
    await camera.send_raw(data)
    await camera.expect("error", code="INVALID_MESSAGE")
    await camera.show_binary()
    assert await camera.rest() == []


async def test_repeated_abuse_closes_with_1008(strict_watchout, strict_user, clients):
    viewer = await clients.viewer(strict_watchout.url, strict_user)
    for _ in range(15):
        await viewer.send_raw("no json")
    assert await viewer.closed() == 1008
    codes = [message["code"] for message in viewer.heard if message["type"] == "error"]
    assert 8 <= codes.count("INVALID_MESSAGE") <= 13


async def test_over_the_message_rate_frames_are_dropped_and_the_camera_stays(strict_watchout, strict_user, clients):
    camera = await clients.camera(strict_watchout.url, strict_user)
    await camera.register()
    for _ in range(105):
        await camera.show("AAAA")
    await camera.find("error", code="RATE_LIMITED")
    assert camera.open

    async def allowed() -> bool:
        await camera.send("auth", token="again")
        try:
            await camera.find("error", 0.1, code="ALREADY_AUTHENTICATED")
        except AssertionError:
            return False
        return True

    await eventually(allowed)


async def test_over_the_message_rate_for_long_is_abuse(strict_watchout, strict_user, clients):
    camera = await clients.camera(strict_watchout.url, strict_user)
    await camera.register()
    with contextlib.suppress(Exception):
        for _ in range(2000):
            await camera.show("AAAA")
    assert await camera.closed() == 1008


async def test_over_the_byte_rate_the_camera_is_told(strict_watchout, strict_user, clients):
    camera = await clients.camera(strict_watchout.url, strict_user)
    await camera.register()
    for _ in range(8):
        await camera.show_binary(bytes(60_000), codec=0)
    error = await camera.find("error", code="RATE_LIMITED")
    assert "bytes" in error["message"]
    assert camera.open


async def test_pings_count_as_messages(strict_watchout, strict_user, clients):
    raw = await clients.raw(strict_watchout.url)
    await raw.upgrade(f"{SUBSCRIBE}?token={strict_user}")
    with contextlib.suppress(ConnectionError):
        for _ in range(100):
            await raw.send(web_socket_frame(PING, b"x") * 20)
    assert await raw.close_code() == 1008


async def test_too_many_connections_of_a_user_close_with_1013(strict_watchout, clients):
    token = strict_watchout.token(new_name("frank"))
    held = [await clients.viewer(strict_watchout.url, token) for _ in range(5)]
    for by in ("message", "header"):
        viewer = await clients.viewer(strict_watchout.url, token, by)
        await viewer.expect("error", code="TOO_MANY_CONNECTIONS")
        assert await viewer.closed() == 1013
    await held[0].leave()

    async def again() -> bool:
        viewer = await clients.viewer(strict_watchout.url, token, "header")
        await viewer.send("auth", token=token)
        return (await viewer.next())["type"] == "success"

    await eventually(again)


async def test_too_many_connections_from_an_address_close_with_1013(strict_watchout, strict_user, clients):
    url = strict_watchout.url
    source = ("127.0.0.3", 0)
    try:
        held = [await clients.raw(url, local_addr=source) for _ in range(30)]
    except OSError as error:
        pytest.skip(f"this system has no second address on loopback: {error}")
    viewer = await clients.viewer(url, strict_user, "header", local_addr=source)
    await viewer.expect("error", code="TOO_MANY_CONNECTIONS")
    assert await viewer.closed() == 1013
    raw = await clients.raw(url, local_addr=source)
    await raw.send(raw.head("/"))
    answer = await raw.answer()
    assert (answer.status, answer.error) == (503, "TOO_MANY_CONNECTIONS")
    assert (await http(f"{url}/health/live")).status == 200
    for socket in held:
        await socket.leave()


async def test_a_viewer_whose_alert_lane_is_full_is_closed_with_4400_and_nobody_else_notices(
    watchout, watchout_loop, clients
):
    started = watchout(loop=watchout_loop, environ={"ALERT_LANE_MESSAGES": "20"})
    token = started.token()
    stuck = await clients.raw(started.url)
    await stuck.upgrade(f"{SUBSCRIBE}?token={token}")
    await stuck.send(web_socket_frame(TEXT, b'{"type":"subscribe","streamId":"cam","consumes":["alert"]}'))
    await stuck.json("status")
    stuck.writer.transport.pause_reading()
    good = await clients.viewer(started.url, token)
    await good.subscribe("cam")
    alert = {"streamId": "cam", "severity": "low", "metadata": {"filling": "x" * 14_000}}
    said = 0
    while "closed" not in started.one("gateway").output:
        assert said < 2000, "28 MB of alerts wait for a viewer that does not read"
        said += 10
        await push(started.url, [{**alert, "message": str(n)} for n in range(said - 9, said + 1)])
        await good.find("alert", message=str(said))
    stuck.writer.transport.resume_reading()
    assert (await stuck.json("error"))["code"] == "SLOW_CONSUMER"
    assert await stuck.close_code() == 4400
    await push(started.url, {**alert, "message": "last"})
    await good.find("alert", message="last")
    assert sum(message["type"] == "alert" for message in good.heard) == said + 1


async def test_a_client_that_answers_no_ping_is_closed_and_one_that_does_stays(strict_watchout, strict_user, clients):
    viewer = await clients.viewer(strict_watchout.url, strict_user)
    raw = await clients.raw(strict_watchout.url)
    await raw.upgrade(f"{SUBSCRIBE}?token={strict_user}")
    assert (await raw.frame()).opcode == PING
    await raw.gone(8)
    await viewer.rest()


async def test_a_ping_is_answered_with_its_payload(url, alice, clients):
    raw = await clients.raw(url)
    await raw.upgrade(f"{SUBSCRIBE}?token={alice}")
    await raw.send(web_socket_frame(PING, b"payload"))
    frame = await raw.frame()
    assert (frame.opcode, frame.payload) == (PONG, b"payload")
    await raw.send(web_socket_frame(PONG, b"unasked"))
    await raw.send(web_socket_frame(CLOSE, b"\x03\xe8bye"))
    assert await raw.close_code() == 1000
    assert await raw.gone() == b""


async def test_a_message_over_the_limit_closes_with_1009_and_one_at_the_limit_does_not(
    strict_watchout, strict_user, clients
):
    limit = 65536
    viewer = await clients.viewer(strict_watchout.url, strict_user)
    text = '{"type":"auth","token":"x"}'
    await viewer.send_raw(text + " " * (limit - len(text)))
    await viewer.expect("error", code="ALREADY_AUTHENTICATED")
    await viewer.send_raw(text + " " * (limit - len(text) + 1))
    assert await viewer.closed() == 1009


@pytest.mark.parametrize("way", ["binary", "fragments", "declared", "compressed", "unauthenticated"])
async def test_whatever_way_a_message_is_over_the_limit_it_closes_with_1009(strict_watchout, strict_user, clients, way):
    raw = await clients.raw(strict_watchout.url)
    query = "" if way == "unauthenticated" else f"?token={strict_user}"
    headers = ("Sec-WebSocket-Extensions: permessage-deflate",) if way == "compressed" else ()
    await raw.upgrade(REGISTER + query, *headers)
    with contextlib.suppress(ConnectionError):
        if way == "fragments":
            await raw.send(web_socket_frame(TEXT, b"{", fin=False))
            for _ in range(70):
                await raw.send(web_socket_frame(CONTINUATION, b" " * 1000, fin=False))
        elif way == "declared":
            await raw.send(b"\x82\xff" + (65537).to_bytes(8, "big"))
        elif way == "compressed":
            packer = zlib.compressobj(wbits=-12)
            bomb = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_SYNC_FLUSH)
            await raw.send(web_socket_frame(TEXT, bomb[:-4], rsv=4))
        else:
            await raw.send(web_socket_frame(BINARY, bytes(65537)))
    assert await raw.close_code() == 1009


@pytest.mark.parametrize(
    "frames",
    [
        [web_socket_frame(TEXT, b"\xff")],
        [web_socket_frame(TEXT, b'{"type":"\xed\xa0\x80"}')],
        [web_socket_frame(TEXT, "ä".encode()[:1], fin=False), web_socket_frame(CONTINUATION, b"x")],
        [web_socket_frame(CLOSE, b"\x03\xe8\xff")],
    ],
)
@pytest.mark.parametrize("authenticated", [True, False])
async def test_broken_utf_8_closes_with_1007(url, alice, clients, frames, authenticated):
    raw = await clients.raw(url)
    await raw.upgrade(REGISTER + (f"?token={alice}" if authenticated else ""))
    await raw.send(b"".join(frames))
    assert await raw.close_code() == 1007


@pytest.mark.parametrize(
    "frames",
    [
        [web_socket_frame(TEXT, b"{}", masked=False)],
        [web_socket_frame(0x3)],
        [web_socket_frame(0xB)],
        [web_socket_frame(TEXT, b"{}", rsv=4)],
        [web_socket_frame(TEXT, b"{}", rsv=1)],
        [web_socket_frame(PING, b"x", fin=False)],
        [web_socket_frame(PING, b"x" * 126)],
        [web_socket_frame(CLOSE, b"x")],
        [web_socket_frame(CLOSE, b"\x03\xed")],
        [web_socket_frame(CONTINUATION, b"x")],
        [web_socket_frame(TEXT, b"x", fin=False), web_socket_frame(TEXT, b"x")],
        [b"\x81\xff" + b"\xff" * 8],
    ],
)
async def test_a_protocol_error_closes_with_1002(url, alice, clients, frames):
    raw = await clients.raw(url)
    await raw.upgrade(f"{REGISTER}?token={alice}")
    await raw.send(b"".join(frames))
    assert await raw.close_code() in ((1002,) if not frames[0].startswith(b"\x81\xff") else (1002, 1009))
    assert (await http(f"{url}/health/live")).status == 200


async def test_sigterm_closes_clients_with_1012_and_ends_within_5_seconds(watchout, watchout_loop, clients):
    started = watchout(loop=watchout_loop)
    token = started.token()
    camera, viewer = await clients.camera(started.url, token), await clients.viewer(started.url, token)
    await camera.register("cam")
    await viewer.subscribe("cam")
    unauthenticated = await clients.viewer(started.url, None)
    deaf = await clients.raw(started.url)
    await deaf.upgrade(f"{SUBSCRIBE}?token={token}")
    half = await clients.raw(started.url)
    await half.send(b"GET / HTTP/1.1\r\n")
    kept_alive = await clients.raw(started.url)
    await kept_alive.send(kept_alive.head("/health/live"))
    assert (await kept_alive.answer()).status == 200
    async with asyncio.timeout(10):
        for name in ("gateway", "mlbridge", "router"):
            process = started.one(name)
            began = time.monotonic()
            process.send_signal(15)
            if name == "gateway":
                for client in (camera, viewer, unauthenticated):
                    assert await client.closed() == 1012
                assert await deaf.close_code() == 1012
            assert await process.ended() == 0
            assert time.monotonic() - began < 5


# ── section 5 and the bytes below it ─────────────────────────────────────────────────────────────────────────────


async def test_a_binary_frame_has_the_documented_header(url, alice, clients):
    camera = await clients.camera(url, alice)
    stream = await camera.register(new_name())
    raw = await clients.raw(url)
    await raw.upgrade(f"{SUBSCRIBE}?token={alice}")
    wish = {"type": "subscribe", "streamId": stream, "consumes": ["video-frame"], "format": "binary"}
    await raw.send(web_socket_frame(TEXT, json.dumps(wish).encode()))
    await raw.json("status")
    for n, (codec, picture) in enumerate(((0, b"anything"), (1, JPEG), (2, PNG), (3, WEBP)), 1):
        await camera.show_binary(picture, codec=codec, timestamp=2**40 + n, frame_id=77, stream_id=stream)
        frame = await raw.frame()
        name = stream.encode()
        expected = (
            bytes((0x57, 1, 1, 0)) + n.to_bytes(4, "big") + (2**40 + n).to_bytes(8, "big") + bytes((codec, len(name)))
            + name + picture
        )  # fmt: skip
        assert (frame.opcode, frame.fin, frame.payload) == (BINARY, True, expected)
        assert unpack_frame(frame.payload)["picture"] == picture


async def test_deflate_is_negotiated_without_context_takeover_and_frames_are_sent_uncompressed(url, alice, clients):
    raw = await clients.raw(url)
    answer = await raw.upgrade(f"{SUBSCRIBE}?token={alice}", "Sec-WebSocket-Extensions: permessage-deflate")
    words = {word.strip().partition("=")[0] for word in answer.headers["sec-websocket-extensions"].split(";")}
    assert words >= {"permessage-deflate", "server_no_context_takeover", "client_no_context_takeover"}
    camera = await clients.camera(url, alice, extensions=[ClientPerMessageDeflateFactory()])
    stream = await camera.register()
    wish = {"type": "subscribe", "streamId": stream, "consumes": ["video-frame"]}
    await raw.send(web_socket_frame(TEXT, json.dumps(wish).encode()))
    await raw.json("status")
    data = "A" * 100_000  # which deflate would make small
    for _ in range(3):
        await camera.show(data)
        frame = await raw.frame()
        assert (frame.opcode, frame.rsv, json.loads(frame.payload)["data"]) == (TEXT, 0, data)


async def test_compressed_messages_of_clients_are_taken(url, alice, clients):
    camera = await clients.camera(url, alice, compression="deflate")
    assert camera.connection.protocol.extensions
    stream = await camera.register()
    viewer = await clients.viewer(url, alice, compression="deflate")
    await viewer.subscribe(stream, format="binary")
    for n in range(1, 6):
        await (camera.show if n % 2 else camera.show_binary)()
        await viewer.frame(frameId=n, picture=JPEG)


async def test_an_unknown_extension_is_not_negotiated(url, alice, clients):
    raw = await clients.raw(url)
    answer = await raw.upgrade(f"{SUBSCRIBE}?token={alice}", "Sec-WebSocket-Extensions: x-unknown; a=1")
    assert "sec-websocket-extensions" not in answer.headers


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_a_frame_may_come_in_a_thousand_fragments_with_pings_between(url, alice, clients, opcode):
    raw = await clients.raw(url)
    await raw.upgrade(f"{REGISTER}?token={alice}")
    stream = new_name()
    wish = {"type": "register", "streamId": stream, "produces": ["video-frame"]}
    await raw.send(web_socket_frame(TEXT, json.dumps(wish).encode()))
    await raw.json("success")
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream, format="json" if opcode == TEXT else "binary")
    picture = secrets.token_bytes(50_000)
    if opcode == TEXT:
        whole = json.dumps({"type": "video-frame", "data": base64_of(picture)}).encode()
    else:
        whole = pack_frame(picture, codec=0)
    size = len(whole) // 999
    parts = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert len(parts) >= 1000
    sent = web_socket_frame(opcode, parts[0], fin=False)
    for n, part in enumerate(parts[1:], 1):
        if n % 100 == 0:
            sent += web_socket_frame(PING, b"between")
        sent += web_socket_frame(CONTINUATION, part, fin=n == len(parts) - 1)
    await raw.send(sent)
    frame = await viewer.frame(frameId=1)
    if opcode == TEXT:
        assert frame["data"] == base64_of(picture)
    else:
        assert frame["picture"] == picture


async def test_everything_may_come_byte_by_byte(url, alice, clients):
    raw = await clients.raw(url)
    raw.writer.get_extra_info("socket").setsockopt(6, 1, 1)  # TCP_NODELAY
    stream = new_name()
    said = [
        raw.upgrade_head(REGISTER),
        web_socket_frame(TEXT, json.dumps({"type": "auth", "token": alice}).encode()),
        web_socket_frame(
            TEXT, json.dumps({"type": "register", "streamId": stream, "produces": ["video-frame"]}).encode()
        ),
        web_socket_frame(BINARY, pack_frame(b"\xff\xd8\xff", codec=0)),
    ]
    for n, data in enumerate(said):
        for at in range(len(data)):
            await raw.send(data[at : at + 1])
            await asyncio.sleep(0)
        if n == 0:
            assert (await raw.answer()).status == 101
    assert (await raw.json("success"))["message"] == "Authentication successful"
    assert (await raw.json("success"))["streamId"] == stream
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream, format="binary")
    assert (await viewer.frame())["picture"] == b"\xff\xd8\xff"


@pytest.mark.parametrize("sent", ["json", "binary"])
async def test_a_frame_of_16_mib_goes_through_and_a_byte_more_does_not(url, alice, clients, sent):
    camera = await clients.camera(url, alice)
    stream = await camera.register()
    viewer = await clients.viewer(url, alice)
    await viewer.subscribe(stream, format=sent)
    if sent == "json":
        empty = len(json.dumps({"type": "video-frame", "data": ""}))
        data = "A" * (16 * MIB - empty)
        await camera.show(data)
        assert (await viewer.find("video-frame", 20))["data"] == data
        await camera.show(data + "A")
    else:
        picture = bytes(16 * MIB - 18)
        await camera.show_binary(picture, codec=0)
        assert (await viewer.find("video-frame", 20))["picture"] == picture
        await camera.show_binary(picture + b"x", codec=0)
    assert await camera.closed() == 1009
    await viewer.status("offline")


# ── HTTP below the WebSocket ─────────────────────────────────────────────────────────────────────────────────────


async def served(url: str, clients: Clients, token: str, socket: RawSocket) -> None:
    """An upgraded connection works as any."""
    stream = new_name()
    wish = {"type": "subscribe", "streamId": stream, "consumes": ["video-frame"]}
    await socket.send(web_socket_frame(TEXT, json.dumps(wish).encode()))
    assert (await socket.json("status"))["status"] == "offline"
    camera = await clients.camera(url, token)
    await camera.register(stream)
    await camera.show()
    assert (await socket.json("video-frame"))["frameId"] == 1


@pytest.mark.parametrize("how", ["whole", "two pieces", "byte by byte", "pipelined"])
async def test_a_later_request_of_a_kept_alive_connection_may_be_the_upgrade(url, alice, clients, how):
    raw = await clients.raw(url)
    first, upgrade = raw.head("/health/live"), raw.upgrade_head(f"{SUBSCRIBE}?token={alice}")
    if how == "pipelined":
        await raw.send(first + upgrade)
        assert (await raw.answer()).status == 200
    else:
        for _ in range(2):
            await raw.send(first)
            assert (await raw.answer()).status == 200
        if how == "whole":
            await raw.send(upgrade)
        elif how == "two pieces":
            await raw.send(upgrade[:30])
            assert (await http(f"{url}/health/live")).status == 200  # the piece has arrived by now
            await raw.send(upgrade[30:])
        else:
            for at in range(len(upgrade)):
                await raw.send(upgrade[at : at + 1])
                await asyncio.sleep(0)
    answer = await raw.answer()
    if how == "pipelined" and answer.status == 426:  # no client and no proxy does that; an error is good enough
        return
    assert answer.status == 101
    await served(url, clients, alice, raw)


async def test_http_requests_follow_each_other_on_one_connection(url, alice, clients):
    raw = await clients.raw(url)
    for path, status in (("/health/live", 200), ("/nothing", 404), ("/streams", 401), ("/", 200), ("/stats", 200)):
        await raw.send(raw.head(path))
        assert (await raw.answer()).status == status
    await raw.send(raw.head("/streams", f"Authorization: Bearer {alice}", "Connection: close"))
    assert (await raw.answer()).status == 200
    assert await raw.gone() == b""


@pytest.mark.parametrize(
    "lines",
    [
        ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
        ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x"),
        ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + "A" * 100),
        ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        (
            "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 8",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
        ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        ("Upgrade: h2c", "Connection: Upgrade"),
        ("Upgrade: websocket", "Connection: Upgrade", "no header line"),
        ("Upgrade: websocket", "Connection: Upgrade", "Authorization: Bearer a", "Authorization: Bearer b"),
    ],
)  # fmt: skip
async def test_a_handshake_that_is_none_is_a_4xx_with_a_json_body(url, clients, lines):
    raw = await clients.raw(url)
    await raw.send(raw.head(SUBSCRIBE, *lines))
    answer = await raw.answer()
    assert 400 <= answer.status < 500
    assert answer.error
    if "Sec-WebSocket-Version: 8" in lines:
        assert answer.headers.get("sec-websocket-version") == "13"  # RFC 6455 section 4.4
    assert (await http(f"{url}/health/live")).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"GARBAGE\r\n\r\n", b"\r\n\r\n\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
        b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"\0" * 40_000, b"A" * 40_000,
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"GET \xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /alerts HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /streams/subscribe HTTP/1.1\r\nUpgrade: websocket\r\n\r\n\xff\xff\xff\xff",
    ],
)  # fmt: skip
async def test_what_is_no_http_is_answered_with_4xx_or_closed(url, clients, data):
    raw = await clients.raw(url)
    with contextlib.suppress(ConnectionError):
        await raw.send(data)
        raw.writer.write_eof()
    said = await raw.gone()
    assert said == b"" or re.match(rb"HTTP/1\.[01] 4\d\d ", said), said[:200]
    if said:
        body = json.loads(said.partition(b"\r\n\r\n")[2].partition(b"HTTP/1.")[0])
        assert body["error"]["code"]
    assert (await http(f"{url}/health/live")).status == 200


@pytest.mark.parametrize("upgrade", [True, False])
@pytest.mark.parametrize("lines", [["X-Long: " + "x" * 17 * 1024], [f"X-{n}: {'x' * 100}" for n in range(170)]])
async def test_a_head_of_17_kib_is_refused(url, clients, upgrade, lines):
    raw = await clients.raw(url)
    with contextlib.suppress(ConnectionError):
        await raw.send((raw.upgrade_head if upgrade else raw.head)(SUBSCRIBE if upgrade else "/health/live", *lines))
    answer = await raw.answer()
    assert 400 <= answer.status < 500
    assert answer.error


async def test_a_thousand_headers_do_no_harm(url, clients):
    raw = await clients.raw(url)
    await raw.send(raw.head("/health/live", *[f"A{n}: b" for n in range(1000)]))
    assert (await raw.answer()).status in (200, 400, 431)
    assert (await http(f"{url}/health/live")).status == 200


@pytest.mark.parametrize("data", [b"", b"G", b"GET / HTTP/1.1\r\n", b"GET /streams/subscribe HTTP/1.1\r\nUpgrade: w"])
async def test_half_a_request_is_closed_when_its_time_is_over(strict_watchout, clients, data):
    raw = await clients.raw(strict_watchout.url)
    if data:
        await raw.send(data)
    said = await raw.gone(4)
    assert said == b"" or said.startswith(b"HTTP/1.1 4")


async def test_a_slow_head_is_served_in_time_and_closed_past_it(strict_watchout, strict_user, clients):
    quick, slow = await clients.raw(strict_watchout.url), await clients.raw(strict_watchout.url)
    head = quick.head("/health/live")
    for at in range(len(head)):
        await quick.send(head[at : at + 1])
    assert (await quick.answer()).status == 200
    began = time.monotonic()

    async def drip() -> bool:
        try:
            await slow.send(b"x" if slow.reader.at_eof() else b"G")
        except ConnectionError:
            return True
        return slow.reader.at_eof()

    await slow.send(b"GET /")
    reading = asyncio.create_task(slow.gone(6))
    await eventually(drip, 4)
    await reading
    assert 0.5 < time.monotonic() - began < 4


@pytest.mark.parametrize("cut", [True, False])
async def test_a_client_that_is_gone_before_its_handshake_is_answered_does_no_harm(url, alice, clients, cut):
    for query in ("", f"?token={alice}", "?token=" + "w" * 32):
        raw = await clients.raw(url)
        await raw.send(raw.upgrade_head(SUBSCRIBE + query))
        if cut:
            await raw.leave()
        else:
            raw.writer.write_eof()
            await raw.gone()
    viewer = await clients.viewer(url, alice)
    await viewer.rest()


async def test_a_head_request_has_no_body(url, clients):
    answer = await http(f"{url}/health/live", method="HEAD")
    assert answer.status in (200, 405)
    assert answer.body == b""


async def test_connections_that_come_and_go_leave_nothing_behind(watchout, watchout_loop, clients):
    started = watchout(loop=watchout_loop)
    token = started.token()
    for n in range(30):
        made = Clients()
        camera, viewer = await made.camera(started.url, token), await made.viewer(started.url, token, "query")
        await camera.register("cam" if n % 2 else None)
        await viewer.subscribe(camera.stream)
        await camera.show()
        if n % 3:
            camera.cut()
            viewer.cut()
        raw = await made.raw(started.url)
        await raw.send(raw.upgrade_head(SUBSCRIBE)[: 20 + 5 * n])
        await made.close()
    await eventually(lambda: started.get("/stats")[1]["totalConnections"] == 0)
    stats = started.get("/stats")[1]
    assert (stats["totalProducers"], stats["totalVideoConsumers"], stats["activeStreams"]) == (0, 0, [])
