"""The HTTP target against a real server that behaves, and that does not."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.kit.ml_stub import ALERT, MlStub, serving
from tests.kit.relays import Relays
from watchout.common.alerts.model import AlertFault
from watchout.common.media.frames import Frame
from watchout.common.settings import Settings
from watchout.mlbridge.refusals import Blame
from watchout.mlbridge.targets import TargetFailure, TargetTimeout, UnusableResult, open_target, websocket
from watchout.mlbridge.targets.http import HttpTarget, blame_of

PICTURE = b"\xff\xd8\xff" + bytes(range(256))
FRAME = Frame("stream_1", 7, 1_700_000_000_000, picture=PICTURE)


@pytest.fixture
async def stub() -> AsyncIterator[MlStub]:
    async with serving() as stub:
        yield stub


@pytest.fixture
async def target(stub: MlStub) -> AsyncIterator[HttpTarget]:
    target = HttpTarget(stub.url, timeout_s=60, connections=4)
    await target.open(lambda _: None)
    yield target
    await target.close()


def test_no_url_means_no_target_and_the_scheme_chooses_the_kind() -> None:
    assert open_target(Settings()) is None
    assert isinstance(open_target(Settings(ml_service_url="http://127.0.0.1:1")), HttpTarget)
    assert isinstance(open_target(Settings(ml_service_url="https://example.org")), HttpTarget)


def test_credentials_of_the_url_are_not_shown() -> None:
    shown = HttpTarget("http://user:secret@host:1/ml?key=secret", timeout_s=1, connections=1).public_url
    assert shown == "http://host:1/ml/analyze"


async def test_the_frame_is_posted_as_the_contract_says(stub: MlStub, target: HttpTarget) -> None:
    assert await target.analyse(FRAME) == []
    assert stub.requests == [
        {
            "streamId": "stream_1",
            "frame": base64.b64encode(PICTURE).decode(),
            "timestamp": 1_700_000_000_000,
            "frameId": 7,
        }
    ]
    assert stub.paths == ["/analyze"]
    assert stub.headers[0]["Content-Type"] == "application/json"


class Choosy:
    """A service that says what it accepts, takes no other type than those of `takes`, and records what came."""

    def __init__(self, accept: str | None, takes: tuple[str, ...]) -> None:
        self.accept, self.takes = accept, takes
        self.came: list[str] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.came.append(request.content_type)
        self.bodies.append(await request.read())
        self.headers.append(dict(request.headers))
        headers = {} if self.accept is None else {"Accept": self.accept}
        refused = request.content_type not in self.takes
        return web.json_response({"alerts": []}, status=415 if refused else 200, headers=headers)


@asynccontextmanager
async def choosy(
    accept: str | None, *takes: str, batch: int = 1, **options: Any
) -> AsyncIterator[tuple[Choosy, HttpTarget]]:
    service, app = Choosy(accept, takes), web.Application()
    app.router.add_post("/analyze", service.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    target = HttpTarget(
        f"http://127.0.0.1:{runner.addresses[0][1]}", timeout_s=60, connections=4, batch=batch, **options
    )
    await target.open(lambda _: None)
    try:
        yield service, target
    finally:
        await target.close()
        await runner.cleanup()


JSON, JPEG, PARTS = "application/json", "image/jpeg", "multipart/form-data"


async def test_pictures_go_as_they_are_once_the_service_says_that_it_accepts_them() -> None:
    async with choosy("image/*, application/json;q=0.5", JSON, JPEG) as (service, target):
        for _ in range(3):
            assert await target.analyse(FRAME) == []
        assert service.came == [JSON, JPEG, JPEG]
        assert service.bodies[1] == PICTURE
        named = {name: service.headers[1][name] for name in ("X-Stream-Id", "X-Frame-Id", "X-Frame-Time")}
        assert named == {"X-Stream-Id": "stream_1", "X-Frame-Id": "7", "X-Frame-Time": "1700000000000"}
        service.accept = None  # another release of it behind the same URL
        await target.analyse(FRAME)
        await target.analyse(FRAME)
        assert service.came[3:] == [JPEG, JSON]


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "image/png"])
async def test_a_service_that_says_nothing_of_it_gets_base64(accept: str | None) -> None:
    async with choosy(accept, JSON) as (service, target):
        for _ in range(3):
            await target.analyse(FRAME)
        assert service.came == [JSON] * 3


async def test_a_frame_that_another_instance_refuses_as_it_is_is_posted_again_in_base64() -> None:
    async with choosy("image/*", JSON, JPEG) as (service, target):
        await target.analyse(FRAME)
        service.accept, service.takes = None, (JSON,)
        assert await target.analyse(FRAME) == []
        assert service.came == [JSON, JPEG, JSON]
        service.accept, service.takes = "image/*", (JSON, JPEG)
        await target.analyse(FRAME)
        await target.analyse(FRAME)
        assert service.came[3:] == [JSON, JSON]  # for a while


async def test_a_service_that_accepts_pictures_and_refuses_this_one_is_not_asked_again() -> None:
    async with choosy("image/*", JSON) as (service, target):
        await target.analyse(FRAME)
        with pytest.raises(TargetFailure, match="415"):
            await target.analyse(FRAME)
        assert service.came == [JSON, JPEG]


@pytest.mark.parametrize(("body_format", "came"), [("json", JSON), ("raw", JPEG)])
async def test_a_format_that_is_set_is_kept(body_format: str, came: str) -> None:
    accept = "image/*" if body_format == "json" else None
    async with choosy(accept, JSON, JPEG, body_format=body_format) as (service, target):
        for _ in range(3):
            await target.analyse(FRAME)
        assert service.came == [came] * 3


async def test_batches_go_in_parts_once_the_service_accepts_those() -> None:
    frames = [Frame(f"s{number}", 1, 2, picture=PICTURE) for number in range(2)]
    for accept, second in ((PARTS, PARTS), ("image/*", JSON)):
        async with choosy(accept, JSON, PARTS, batch=2) as (service, target):
            for _ in range(2):
                await asyncio.gather(*map(target.analyse, frames))
            assert service.came == [JSON, second]


async def test_a_data_prefix_and_escapes_of_the_camera_are_gone(stub: MlStub, target: HttpTarget) -> None:
    text = json.dumps("data:image/jpeg;base64," + base64.b64encode(PICTURE).decode()).replace("/", "\\/")
    await target.analyse(Frame("s", 1, 2, text=text.encode()))
    assert stub.requests[0]["frame"] == base64.b64encode(PICTURE).decode()


async def test_a_path_and_a_query_of_the_url_are_kept(stub: MlStub) -> None:
    target = HttpTarget(stub.url + "/team/a?key=k", timeout_s=60, connections=1)
    await target.open(lambda _: None)
    await target.analyse(FRAME)
    await target.close()
    assert stub.paths == ["/team/a/analyze?key=k"]


async def test_a_large_frame_goes_through(stub: MlStub, target: HttpTarget) -> None:
    await target.analyse(Frame("s", 1, 2, picture=PICTURE[:3] + bytes((3 << 20) - 3)))
    assert len(stub.requests[0]["frame"]) == 4 << 20


async def test_connections_last(stub: MlStub, target: HttpTarget) -> None:
    for _ in range(5):
        await target.analyse(FRAME)
    assert len(stub.peers) == 1


async def test_no_proxy_of_the_environment_is_used(
    stub: MlStub, monkeypatch: pytest.MonkeyPatch, target: HttpTarget
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    await target.analyse(FRAME)
    assert len(stub.requests) == 1


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({"alert": ALERT}, [ALERT]),
        ({"alerts": [ALERT, ALERT]}, [ALERT, ALERT]),
        ({"alert": ALERT, "alerts": [{"x": 1}]}, [ALERT, {"x": 1}]),
        ({"alert": 7}, [7]),
        ({}, []),
        ({"alert": None, "alerts": None}, []),
    ],
)
async def test_the_alerts_of_an_answer_are_found(
    stub: MlStub, target: HttpTarget, answer: object, found: object
) -> None:
    stub.mode, stub.answer = "answer", answer
    assert await target.analyse(FRAME) == found


@pytest.mark.parametrize("text", ["", "no json", '{"alert":', "[" * 100_000, "\x00", '{"a":' * 50_000, "9" * 5000])
async def test_an_answer_that_is_no_json_is_unusable(stub: MlStub, target: HttpTarget, text: str) -> None:
    stub.mode, stub.answer = "text", text
    with pytest.raises(UnusableResult):
        await target.analyse(FRAME)


@pytest.mark.parametrize("answer", [[], [ALERT], None, "alert", 7, ALERT, {"detections": [1]}, {"error": "boom"}])
async def test_json_in_another_form_is_unusable(stub: MlStub, target: HttpTarget, answer: object) -> None:
    stub.mode, stub.answer = "answer", answer
    with pytest.raises(UnusableResult) as raised:
        await target.analyse(FRAME)
    assert raised.value.blame is Blame.UNSURE


@pytest.mark.parametrize("status", [202, 204, 205])
async def test_a_status_that_says_that_there_is_no_answer_needs_none(
    stub: MlStub, target: HttpTarget, status: int
) -> None:
    stub.mode, stub.answer = "bare", status
    assert await target.analyse(FRAME) == []


@pytest.mark.parametrize(
    ("statuses", "blame"),
    [
        ((400, 406, 409, 412, 413, 415, 416, 418, 422, 423, 424, 451, 460, 499), Blame.FRAME),
        ((401, 402, 405, 407, 411, 421, 425, 426, 428, 429, 431, 100, 300, 302, 307), Blame.SERVICE),
        ((403, 404, 408, 410, 500, 501, 502, 503, 504, 520, 599), Blame.UNSURE),
    ],
)
def test_a_status_says_whose_fault_it_is(statuses: tuple[int, ...], blame: Blame) -> None:
    assert {status: blame_of(status) for status in statuses} == dict.fromkeys(statuses, blame)


async def test_a_service_that_asks_for_time_is_not_ill_for_one_frame(stub: MlStub, target: HttpTarget) -> None:
    stub.mode, stub.answer, stub.answer_headers = "status", 503, {"Retry-After": "7"}
    with pytest.raises(TargetFailure) as raised:
        await target.analyse(FRAME)
    assert (raised.value.blame, raised.value.retry_after_s) == (Blame.SERVICE, 7.0)


async def test_nan_is_seen_so_that_it_can_be_refused(stub: MlStub, target: HttpTarget) -> None:
    stub.mode, stub.answer = "text", '{"alert":{"severity":"low","message":"m","metadata":{"confidence":NaN}}}'
    (alert,) = await target.analyse(FRAME)
    assert isinstance(alert, dict)


@pytest.mark.parametrize("answer", [{"alerts": {}}, {"alerts": "no"}, {"alerts": [ALERT] * 101}])
async def test_alerts_of_a_wrong_shape_are_a_fault(stub: MlStub, target: HttpTarget, answer: object) -> None:
    stub.mode, stub.answer = "answer", answer
    with pytest.raises(AlertFault):
        await target.analyse(FRAME)


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503, 300])
async def test_any_status_but_success_is_a_failure(stub: MlStub, target: HttpTarget, status: int) -> None:
    stub.mode, stub.answer = "status", status
    with pytest.raises(TargetFailure, match=str(status)):
        await target.analyse(FRAME)


async def test_a_redirect_is_a_failure_and_is_not_followed(stub: MlStub, target: HttpTarget) -> None:
    stub.mode = "redirect"
    with pytest.raises(TargetFailure, match="307"):
        await target.analyse(FRAME)
    assert stub.paths == ["/analyze"]


@pytest.mark.parametrize("mode", ["hang", "drip"])
async def test_the_deadline_is_for_the_whole_answer(stub: MlStub, mode: str) -> None:
    target = HttpTarget(stub.url, timeout_s=0.5, connections=4)
    await target.open(lambda _: None)
    stub.mode = mode
    began = time.monotonic()
    with pytest.raises(TargetTimeout):
        await target.analyse(FRAME)
    assert time.monotonic() - began < 30
    await target.close()


@pytest.mark.parametrize("mode", ["huge", "announced"])
async def test_an_answer_over_a_mebibyte_is_a_failure(stub: MlStub, target: HttpTarget, mode: str) -> None:
    stub.mode = mode
    with pytest.raises(TargetFailure, match="1048576"):
        await target.analyse(FRAME)
    stub.mode = "none"
    assert await target.analyse(FRAME) == []


async def test_a_compressed_answer_is_not_unpacked(stub: MlStub, target: HttpTarget) -> None:
    stub.mode = "gzip"
    with pytest.raises(UnusableResult):
        await target.analyse(FRAME)
    assert stub.headers[0]["Accept-Encoding"] == "identity"


async def test_a_closed_port_is_a_failure_and_the_service_is_found_when_it_is_back(
    stub: MlStub, target: HttpTarget
) -> None:
    await target.analyse(FRAME)
    await stub.stop()
    with pytest.raises(TargetFailure):
        await target.analyse(FRAME)
    with pytest.raises(TargetFailure, match="no connection"):
        await target.analyse(FRAME)
    await stub.start()
    assert await target.analyse(FRAME) == []


@pytest.mark.parametrize(
    "answer",
    [b"", b"garbage\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
     b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000],
)  # fmt: skip
async def test_broken_http_is_a_failure(answer: bytes) -> None:
    async def answer_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    async with Relays(answer_and_close) as server:
        target = HttpTarget(f"http://127.0.0.1:{server.port}", timeout_s=60, connections=1)
        await target.open(lambda _: None)
        with pytest.raises(TargetFailure):
            await target.analyse(FRAME)
        await target.close()


async def test_a_name_that_does_not_resolve_is_a_failure() -> None:
    target = HttpTarget("http://no-such-host.invalid", timeout_s=60, connections=1)
    await target.open(lambda _: None)
    with pytest.raises(TargetFailure):
        await target.analyse(FRAME)
    await target.close()


@pytest.mark.parametrize(
    ("exc", "says"),
    [
        (OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1)"), "Connect call failed ('::1', 1)"),
        (
            ssl.SSLCertVerificationError(1, "certificate verify failed: certificate has expired"),
            "certificate has expired",
        ),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (OSError(), "OSError"),
    ],
)
def test_a_websocket_that_cannot_be_opened_names_the_cause(exc: OSError, says: str) -> None:
    assert says in websocket._reason(exc)
