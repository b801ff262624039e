"""PROTOCOL.md section 1: the paths over HTTP."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from tests.contract.protocol.support import MIB, REGISTER, STATS_TOKEN, SUBSCRIBE, a_later_ms, push
from tests.kit.clients import JPEG, PNG, WEBP, Client, base64_of, eventually, http, new_name, now_ms
from tests.kit.processes import SERVICE_TOKEN

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def watchout_loop() -> str:
    """What is asked and answered does not depend on the event loop; how it comes and goes does (test_http.py)."""
    return "uvloop"


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
    of_stream = [f"/streams/cam/{page}" for page in ("latency", "where", "shares", "frame.jpg", "mjpeg")]
    for path in ("/stats", "/streams", "/latency", "/alerts?streamId=cam", *of_stream):
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

    await eventually(healthy)

    async def success(client: Client, type: str, **fields: Any) -> bool:
        """Whether the router answers within the short time that it has here."""
        await client.send(type, streamId="cam", **fields)
        return bool((await client.next())["type"] == "success")

    await eventually(lambda: success(camera, "register", produces=["video-frame"]))
    await eventually(lambda: success(viewer, "subscribe", consumes=["video-frame"]))
    await viewer.expect("status", status="streaming")


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
    with contextlib.suppress(ConnectionError, aiohttp.ClientConnectionError):  # it may hang up on what it does not read
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
