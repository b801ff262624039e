"""A real browser as camera and viewer: its own WebSocket, its own JPEG encoder and decoder, on a page from loopback.

Headless Chromium is driven over its DevTools protocol. The page's script is written from the edge protocol alone.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from tests.kit.browser import Tab, opened, served
from tests.kit.clients import JPEG, base64_of, eventually, http, new_name
from tests.kit.processes import SERVICE_TOKEN, running

pytestmark = [pytest.mark.e2e, pytest.mark.real]

PAGE: Final = """<!doctype html><meta charset="utf-8"><title>watchout</title><canvas width="64" height="48"></canvas>
<script>
class Client { // by "cookie": with what the browser sends by itself
  constructor(url, path, token, by = "message") {
    this.heard = [];
    this.news = [];
    const query = by === "query" ? `?token=${encodeURIComponent(token)}` : "";
    this.socket = new WebSocket(url.replace("http", "ws") + path + query);
    this.socket.binaryType = "arraybuffer";
    this.opened = new Promise((resolve) => {
      this.socket.onopen = () => {
        if (by === "message") this.send({ type: "auth", token });
        resolve(true);
      };
    });
    this.closed = new Promise((resolve) => {
      this.socket.onclose = (event) => resolve({ code: event.code, reason: event.reason, clean: event.wasClean });
    });
    this.socket.onmessage = (event) => {
      this.heard.push(typeof event.data === "string" ? JSON.parse(event.data) : unpack(event.data));
      this.news.splice(0).forEach((wake) => wake());
    };
  }
  send(message) { this.socket.send(JSON.stringify(message)); }
  async find(type, fields = {}) {
    for (let at = 0; ; at += 1) {
      while (at >= this.heard.length) await new Promise((wake) => this.news.push(wake));
      const message = this.heard[at];
      if (message.type === type && Object.entries(fields).every(([name, value]) => message[name] === value))
        return message;
    }
  }
}
function pack(picture, timestamp) {
  const bytes = new Uint8Array(18 + picture.byteLength);
  const head = new DataView(bytes.buffer);
  bytes.set([0x57, 1, 1, 0]);
  head.setBigUint64(8, BigInt(timestamp));
  bytes[16] = 1;
  bytes.set(new Uint8Array(picture), 18);
  return bytes.buffer;
}
function unpack(buffer) {
  const head = new DataView(buffer);
  const end = 18 + head.getUint8(17);
  return {
    type: "video-frame", frameId: head.getUint32(4), timestamp: Number(head.getBigUint64(8)), codec: head.getUint8(16),
    streamId: new TextDecoder("ascii").decode(buffer.slice(18, end)), picture: buffer.slice(end),
  };
}
function draw(colour) {
  const canvas = document.querySelector("canvas");
  const pen = canvas.getContext("2d");
  pen.fillStyle = colour;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  return canvas;
}
async function camera(url, token, by, streamId) {
  const client = (window.cam = new Client(url, "/streams/register", token, by));
  await client.opened;
  const wish = { type: "register", clientType: "mobile", produces: ["video-frame", "alert"], consumes: ["alert"] };
  client.send(streamId ? { ...wish, streamId } : wish);
  await client.find("success", by === "message" ? { message: "Authentication successful" } : {});
  while (!(client.stream = client.heard.find((message) => message.streamId)?.streamId))
    await new Promise((wake) => client.news.push(wake));
  return client.stream;
}
async function show(format, colour, timestamp) {
  const canvas = draw(colour);
  if (format === "json") {
    const data = canvas.toDataURL("image/jpeg");
    window.cam.send({ type: "video-frame", streamId: window.cam.stream, data, timestamp });
    return data;
  }
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg"));
  window.cam.socket.send(pack(await blob.arrayBuffer(), timestamp));
  return null;
}
async function viewer(url, token, by, streamId, format) {
  const client = (window.view = new Client(url, "/streams/subscribe", token, by));
  await client.opened;
  client.send({ type: "subscribe", clientType: "dashboard", streamId, consumes: ["video-frame", "alert"], format });
  return (await client.find("status")).status;
}
async function look(frame) {
  const source = frame.picture
    ? new Blob([frame.picture], { type: "image/jpeg" })
    : await (await fetch(frame.data.startsWith("data:") ? frame.data : `data:image/jpeg;base64,${frame.data}`)).blob();
  const picture = await createImageBitmap(source);
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  const pen = canvas.getContext("2d");
  pen.drawImage(picture, 0, 0);
  const [red, green, blue] = pen.getImageData(10, 10, 1, 1).data;
  return {
    width: picture.width, height: picture.height, red, green, blue, frameId: frame.frameId, timestamp: frame.timestamp,
    streamId: frame.streamId, data: frame.data ?? null,
  };
}
</script>
"""


@pytest.fixture
async def page() -> AsyncIterator[str]:
    """The URL of the page, on an origin that is not the gateway's."""
    async with served(PAGE) as url:
        yield url


@pytest.fixture
async def tabs(chromium: str, page: str) -> AsyncIterator[list[Tab]]:
    """Two tabs with the page."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(opened(chromium, page)) for _ in range(2)]


@pytest.fixture
def token(plain_watchout) -> str:
    return plain_watchout.token(new_name("browser"))


def is_red(seen: dict[str, Any]) -> bool:
    return seen["red"] > 200 and seen["green"] < 60 and seen["blue"] < 60


def is_blue(seen: dict[str, Any]) -> bool:
    return seen["blue"] > 200 and seen["red"] < 60 and seen["green"] < 60


@pytest.mark.parametrize("by", ["message", "query"])
@pytest.mark.parametrize("sent", ["json", "binary"])
@pytest.mark.parametrize("wanted", ["json", "binary"])
async def test_a_browser_shows_the_pictures_of_another(plain_watchout, token, tabs, by, sent, wanted):
    url = plain_watchout.url
    phone, dashboard = tabs
    stream = await phone.call("camera", url, token, by)
    assert await dashboard.call("viewer", url, token, by, stream, wanted) == "streaming"
    data = await phone.call("show", sent, "red", 1001)
    seen = await dashboard.run("view.find('video-frame', {frameId: 1}).then(look)")
    assert (seen["width"], seen["height"], seen["timestamp"], seen["streamId"]) == (64, 48, 1001, stream)
    assert is_red(seen)
    if sent == wanted == "json":
        assert seen["data"] == data
    await phone.call("show", sent, "blue", 1002)
    assert is_blue(await dashboard.run("view.find('video-frame', {frameId: 2}).then(look)"))
    assert "permessage-deflate" in await dashboard.run("view.socket.extensions")


async def test_a_browser_shows_the_newest_picture_over_http(plain_watchout, token, tabs):
    phone, _ = tabs
    stream = await phone.call("camera", plain_watchout.url, token, "message")
    data = await phone.call("show", "json", "red", 1001)

    async def newest() -> Any:
        answer = await http(f"{plain_watchout.url}/streams/{stream}/frame.jpg", token=token)
        return answer if answer.status == 200 else None

    answer = await eventually(newest)
    assert answer.headers["content-type"] == "image/jpeg"
    assert f"data:image/jpeg;base64,{base64_of(answer.body)}" == data


async def test_an_img_of_a_browser_shows_the_moving_picture(plain_watchout, token, tabs):
    phone, dashboard = tabs
    stream = await phone.call("camera", plain_watchout.url, token, "message")
    await phone.call("show", "binary", "red", 1001)
    source = json.dumps(f"{plain_watchout.url}/streams/{stream}/mjpeg?token={token}")
    await dashboard.run(f"(window.img = new Image()).crossOrigin = null, img.src = {source}, document.body.append(img)")

    async def wide() -> Any:
        await phone.call("show", "binary", "blue", 1002)  # Chromium shows a part when the next one begins
        return await dashboard.run("img.naturalWidth") == 64

    await eventually(wide)
    await dashboard.run("img.remove(), img.src = ''")

    async def nobody() -> bool:
        listed = (await http(f"{plain_watchout.url}/streams", token=token)).json["streams"]
        return [row["viewers"] for row in listed if row["id"] == stream] == [0]

    await eventually(nobody)


async def test_a_browser_sees_a_camera_of_another_kind_and_alerts(plain_watchout, token, tabs, clients):
    _, dashboard = tabs
    camera = await clients.camera(plain_watchout.url, token)
    stream = await camera.register()
    await dashboard.call("viewer", plain_watchout.url, token, "message", stream, "json")
    await camera.show()
    frame = await dashboard.run("view.find('video-frame')")
    assert frame["data"] == base64_of(JPEG)
    alert = {"streamId": stream, "severity": "high", "message": "Gefahr ≠ 😀", "frameId": 1}
    answer = await http(f"{plain_watchout.url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)
    assert 200 <= answer.status < 300
    assert (await dashboard.run("view.find('alert')")).items() >= alert.items()
    await camera.leave()
    await dashboard.run("view.find('status', {status: 'offline'})")


async def test_a_panic_button_in_one_browser_reaches_the_other(plain_watchout, token, tabs):
    phone, dashboard = tabs
    stream = await phone.call("camera", plain_watchout.url, token, "message", new_name())
    await dashboard.call("viewer", plain_watchout.url, token, "message", stream, "json")
    await phone.run("cam.send({type: 'alert', streamId: cam.stream, severity: 'critical', message: 'help'})")
    for tab, client in ((dashboard, "view"), (phone, "cam")):
        alert = await tab.run(f"{client}.find('alert')")
        assert (alert["streamId"], alert["message"]) == (stream, "help")


async def test_a_browser_sees_the_close_codes(plain_watchout, token, tabs):
    phone, other = tabs
    url = plain_watchout.url
    wrong = json.dumps([url, "/streams/subscribe", "w" * 32])
    assert (await phone.run(f"new Client(...{wrong}).closed"))["code"] == 1008
    assert (await phone.run(f"new Client(...{wrong}, 'query').closed"))["code"] == 1006  # browsers hide the 401
    stream = await phone.call("camera", url, token, "message", new_name())
    await other.call("camera", url, token, "query", stream)
    closed = await phone.run("cam.closed")
    assert (closed["code"], closed["clean"]) == (4501, True)


async def test_a_browser_sees_1012_when_the_gateway_ends(tabs):
    phone, dashboard = tabs
    with running() as started:
        token = started.token()
        stream = await phone.call("camera", started.url, token, "message")
        await dashboard.call("viewer", started.url, token, "message", stream, "json")
        gateway = started.one("gateway")
        gateway.send_signal(signal.SIGTERM)
        for tab, client in ((phone, "cam"), (dashboard, "view")):
            closed = await tab.run(f"{client}.closed")
            assert (closed["code"], closed["clean"]) == (1012, True)
        assert await gateway.ended(30) == 0


async def newest_of(picture: str, token: str, frame_id: int) -> bool:
    return (await http(picture, token=token)).headers.get("x-frame-id") == str(frame_id)


def in_a_sandbox(url: str, stream: str) -> str:
    """A script: what a sandboxed frame is told over a WebSocket, and whether it may read over HTTP."""
    asks = json.dumps({"type": "subscribe", "streamId": stream})
    page = f"""<script>(async () => {{
        const socket = new WebSocket({json.dumps(url.replace("http", "ws") + "/streams/subscribe")});
        socket.onopen = () => socket.send({json.dumps(asks)});
        const told = new Promise((done) => {{ socket.onmessage = (event) => done(JSON.parse(event.data).code); }});
        const asked = fetch({json.dumps(url + "/streams")}, {{ credentials: "include" }});
        const read = asked.then(() => "read", () => "refused");
        parent.postMessage([await told, await read], "*");
    }})()</script>"""
    return f"""new Promise((done) => {{
        const frame = Object.assign(document.createElement("iframe"), {{ srcdoc: {json.dumps(page)} }});
        frame.sandbox = "allow-scripts";
        addEventListener("message", (event) => done(event.data), {{ once: true }});
        document.body.append(frame);
    }})"""


async def test_a_page_uses_the_cookie_of_its_users_session_until_he_signs_out(
    tabs, page, postgres_url, start_better_auth, clients
):
    tab, evil = tabs
    auth = start_better_auth(postgres_url)
    origin = page.rstrip("/")
    environ = {"DATABASE_URL": postgres_url, "BETTER_AUTH_SECRET": auth.ready["secret"], "ALLOWED_ORIGINS": origin}
    with running(environ=environ) as started:
        calls = auth.url + auth.ready["basePath"]
        await tab.go(f"{calls}/ok")
        person = {"email": "ann@example.com", "password": "correct horse", "name": "ann"}
        post = """(path, body) => fetch(path, {
            method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(body),
        }).then((answer) => answer.json())"""
        signed_up = await tab.run(f"({post})({json.dumps(calls + '/sign-up/email')}, {json.dumps(person)})")
        await tab.go(page)

        camera = await clients.camera(started.url, signed_up["token"])
        stream = await camera.register()
        assert await tab.call("viewer", started.url, None, "cookie", stream, "json") == "streaming"
        await camera.show()
        assert (await tab.run("view.find('video-frame')"))["data"] == base64_of(JPEG)

        listed = f"fetch({json.dumps(started.url + '/streams')}, {{credentials: 'include'}})"
        assert [row["id"] for row in (await tab.run(f"{listed}.then((a) => a.json())"))["streams"]] == [stream]
        picture = f"{started.url}/streams/{stream}/frame.jpg"
        await eventually(lambda: newest_of(picture, signed_up["token"], 1))
        seen = f"fetch({json.dumps(picture)}, {{credentials: 'include'}}).then((a) => a.headers.get('X-Frame-Id'))"
        assert await tab.run(seen) == "1"

        async with served(PAGE) as elsewhere:  # the same browser with the same cookie, in another page
            loads = """(source, policy) => new Promise((done) => {
                const picture = Object.assign(new Image(), { referrerPolicy: policy });
                picture.onload = () => done("shown"), picture.onerror = () => done("not shown"), picture.src = source;
            })"""
            await camera.show(await tab.run("draw('red').toDataURL('image/jpeg')"))
            await eventually(lambda: newest_of(picture, signed_up["token"], 2))
            for policy, shown in (("", "shown"), ("no-referrer", "not shown")):  # nobody vouches for a page that hides
                source = json.dumps(f"{picture}?listed={policy}")
                assert await tab.run(f"({loads})({source}, {json.dumps(policy)})") == shown
            await evil.go(elsewhere)
            for policy in ("", "no-referrer", "unsafe-url", "origin"):
                source = json.dumps(f"{picture}?foreign={policy}")
                assert await evil.run(f"({loads})({source}, {json.dumps(policy)})") == "not shown"
            await evil.run(
                f"(window.foreign = new Client({json.dumps(started.url)}, '/streams/subscribe', null, 'cookie')).opened"
            )
            await evil.run(f"foreign.send({{type: 'subscribe', streamId: {json.dumps(stream)}}})")
            assert (await evil.run("foreign.find('error')"))["code"] == "AUTH_REQUIRED"
            assert await evil.run(f"{listed}.then(() => 'read', () => 'refused')") == "refused"
            for outer in (evil, tab):  # a sandboxed frame is of no origin, also in a page that may
                assert await outer.run(in_a_sandbox(started.url, stream)) == ["AUTH_REQUIRED", "refused"]

        await evil.go(f"{calls}/ok")
        await evil.run(f"({post})({json.dumps(calls + '/sign-out')}, {{}})")
        closed = await tab.run("view.closed")
        assert (closed["code"], closed["clean"]) == (4500, True)
        assert (await tab.run("view.find('error')"))["code"] == "SESSION_ENDED"
