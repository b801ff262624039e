"""The load: that it knows its frames again and nothing else, and what it says of servers that do wrong."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.clientwire import TEXT, masked
from benchmarks.load import run as load_run
from benchmarks.load.clients import Camera, Viewer
from benchmarks.load.frames import Corrupt, Messages, pictures
from benchmarks.load.model import LoadFault, Plan, Slow
from benchmarks.load.run import Run
from benchmarks.load.service_alerts import BURST, ServiceAlerts, number_of
from benchmarks.plan import Point, Turn
from benchmarks.runner import one
from benchmarks.systems import Missing, Options, system
from tests.kit.ports import free_port
from tests.kit.processes import REPOSITORY

PICTURES = [b"\xff\xd8" + bytes([k]) * (50 + k) + b"\xff\xd9" for k in range(3)]
MASK = b"\x11\x22\x33\x44"
BASE = 1_700_000_000_000


def messages(dialect: str, form: str, streams: int = 3, envelope: str = "compact") -> Messages:
    plan = Plan(dialect=dialect, ports=(1,), format=form, streams=streams, envelope=envelope)
    return Messages(plan, PICTURES, base=BASE, mask=MASK)


def relayed(made: Messages, stream: int, n: int, frame_id: int, form: str) -> bytearray:
    """Frame n as a server of the dialect `watchout` would send it: unmasked, with its `frameId`."""
    wire = b"".join(made.pieces(stream, n))
    # Below 126 bytes a masked header has 6 bytes, beyond 8 (RFC 6455 section 5.2).
    at = 8 if wire[1] & 0x7F == 126 else 6
    assert wire[at - 4 : at] == MASK
    payload = masked(wire[at:], MASK)
    if form == "json":
        return bytearray(payload[:-1] + b',"frameId":%d}' % frame_id)
    return bytearray(payload[:4] + frame_id.to_bytes(4, "big") + payload[8:])


# The frames


@pytest.mark.parametrize("n", range(7))
def test_a_json_frame_is_what_old_clients_send(n):
    made = messages("watchout", "json")
    payload = bytes(relayed(made, 1, n, 9, "json"))
    said = json.loads(payload)
    assert list(said) == ["type", "streamId", "data", "timestamp", "frameId"]
    assert (said["type"], said["streamId"], said["timestamp"]) == ("video-frame", "cam-00001", BASE + n)
    assert base64.b64decode(said["data"]) == PICTURES[n % 3]


@pytest.mark.parametrize(
    ("envelope", "written"),
    [
        ("compact", '{{"type":"video-frame","streamId":"cam-00001","data":"{}","timestamp":1700000000004}}'),
        ("spaces", '{{"type": "video-frame", "streamId": "cam-00001", "data": "{}", "timestamp": 1700000000004}}'),
        (
            "fields",
            (
                '{{"type":"video-frame","streamId":"cam-00001","data":"{}","timestamp":1700000000004,"width":1280,'
                '"height":720,"rotation":90}}'
            ),
        ),
        ("slashes", '{{"type":"video-frame","streamId":"cam-00001","data":"{}","timestamp":1700000000004}}'),
    ],
)
def test_a_camera_writes_json_as_its_encoder_does(envelope: str, written: str) -> None:
    made = messages("watchout", "json", envelope=envelope)
    wire = b"".join(made.pieces(1, 4))
    data = base64.b64encode(PICTURES[1]).decode()
    assert "/" in data
    payload = masked(wire[8:], MASK).decode()
    assert payload == written.format(data.replace("/", "\\/") if envelope == "slashes" else data)
    assert len(wire) - 8 == int.from_bytes(wire[2:4], "big")


def test_a_camera_writes_fragments() -> None:
    made = messages("watchout", "json", envelope="fragments")
    wire = b"".join(made.pieces(1, 4))
    size = int.from_bytes(wire[2:4], "big")
    first, last = wire[: 8 + size], wire[8 + size :]
    assert (first[0], first[1], last[0], last[1]) == (0x01, 0x80 | 126, 0x80, 0x80 | len(last) - 6)
    assert masked(first[8:], MASK) + masked(last[6:], MASK) == bytes(
        relayed(messages("watchout", "json"), 1, 4, 0, "json")
    ).replace(b',"frameId":0', b"")


def test_a_frame_that_lost_its_fields_is_corrupt() -> None:
    made = messages("watchout", "json", envelope="fields")
    payload = relayed(made, 1, 4, 7, "json")
    assert made.known(payload, 0, len(payload), 1, 4) == (4, 7)
    without = payload.replace(b',"height":720', b"")
    with pytest.raises(Corrupt):
        made.known(without, 0, len(without), 1, 4)


def test_an_alert_is_known_again_and_what_stands_for_it_has_as_many_bytes_at_the_viewer() -> None:
    made, stands = (messages("watchout", "json", envelope=envelope) for envelope in ("alert", "like-alert"))
    wire = b"".join(made.pieces(1, 4))
    said = msgspec.json.decode(masked(wire[8:], MASK))
    assert (said["type"], said["severity"], said["timestamp"]) == ("alert", "low", BASE + 4)
    # As a gateway passes it on.
    named = bytearray(msgspec.json.encode({"type": "alert", "id": 32 * "a", **said}))
    assert made.known(named, 0, len(named), 1, 4) == (4, 0)
    frame = relayed(stands, 1, 4, 7, "json")
    assert stands.known(frame, 0, len(frame), 1, 4) == (4, 7)
    assert len(frame) == len(named)
    for wrong in (
        named.replace(b"low", b"mid"),
        named.replace(b"person", b"parcel"),
        named.replace(b"alert", b"other"),
    ):
        with pytest.raises(Corrupt):
            made.known(wrong, 0, len(wrong), 1, 4)
    with pytest.raises(Corrupt):
        stands.known(named, 0, len(named), 1, 4)


@pytest.mark.parametrize(("dialect", "form"), [("raw", "json"), ("watchout", "binary")])
def test_an_envelope_is_for_json_over_websocket(dialect: str, form: str) -> None:
    with pytest.raises(LoadFault, match="the envelope spaces"):
        messages(dialect, form, envelope="spaces")


@pytest.mark.parametrize("n", range(7))
def test_a_binary_frame_has_the_header_of_the_protocol(n):
    payload = relayed(messages("watchout", "binary"), 2, n, 0, "binary")
    assert payload[:4] == b"\x57\x01\x01\x00"
    assert int.from_bytes(payload[4:8], "big") == 0
    assert int.from_bytes(payload[8:16], "big") == BASE + n
    assert payload[16:18] == b"\x01\x09"
    assert payload[18:27] == b"cam-00002"
    assert payload[27:] == PICTURES[n % 3]


@pytest.mark.parametrize("form", ["json", "binary"])
def test_raw_frames_have_their_length_in_front(form):
    made = messages("raw", form)
    wire = b"".join(made.pieces(0, 4))
    assert int.from_bytes(wire[:4], "big") == len(wire) - 4
    assert made.known(bytearray(wire), 4, len(wire), 0, 4) == (4, 0)


@pytest.mark.parametrize("form", ["json", "binary"])
@given(st.integers(0, 2), st.integers(0, 10_000), st.integers(1, 2**32 - 1), st.integers(0, 20_000))
def test_a_frame_is_known_again_whatever_was_guessed(form, stream, n, frame_id, guess):
    made = messages("watchout", form)
    payload = relayed(made, stream, n, frame_id, form)
    around = bytearray(b"before") + payload + b"behind"
    assert made.known(around, 6, 6 + len(payload), stream, guess) == (n, frame_id)


def test_a_server_may_write_the_frame_id_where_it_likes():
    made = messages("watchout", "json")
    plain = bytes(relayed(made, 0, 5, 0, "json")).replace(b',"frameId":0', b"")
    for payload in (b'{"frameId":77,' + plain[1:], plain.replace(b',"data"', b',"frameId":77,"data"')):
        assert made.known(bytearray(payload), 0, len(payload), 0, 5) == (5, 77)


@pytest.mark.parametrize("form", ["json", "binary"])
@given(st.data())
def test_a_frame_with_one_wrong_byte_is_never_taken_for_the_right_one(form, data):
    made = messages("watchout", form)
    payload = relayed(made, 1, 7, 123_456, form)
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at] ^= data.draw(st.integers(1, 255))
    with suppress(Corrupt):
        assert made.known(payload, 0, len(payload), 1, 7) != (7, 123_456)


@pytest.mark.parametrize("form", ["json", "binary"])
def test_a_shorter_a_longer_and_another_streams_frame_are_corrupt(form):
    made = messages("watchout", form)
    payload = relayed(made, 1, 7, 1, form)
    for wrong in (payload[:-1], payload + b"x", payload[:60] + payload[61:]):
        with pytest.raises(Corrupt):
            made.known(wrong, 0, len(wrong), 1, 7)
    with pytest.raises(Corrupt, match="cam-00001"):
        made.known(payload, 0, len(payload), 0, 7)


def test_what_is_no_frame_is_left_to_others():
    for form in ("json", "binary"):
        made = messages("watchout", form)
        for said in (b'{"type":"status","streamId":"cam-00000","status":"streaming"}', b"{}", b""):
            assert made.known(bytearray(said), 0, len(said), 0, 0) is None


def test_the_pictures_are_distinct_jpegs_of_about_30_kb():
    found = pictures()
    assert len(found) == len(set(found)) == 8
    for picture in found:
        assert picture.startswith(b"\xff\xd8")
        assert picture.endswith(b"\xff\xd9")
        assert 25_000 <= len(picture) <= 35_000


@pytest.mark.parametrize("size", [8000, 30_000, 200_000])
def test_pictures_of_another_size_are_distinct_jpegs_too(size: int) -> None:
    found = pictures(size)
    assert len(found) == len(set(found)) == 8
    assert {len(picture) for picture in found} == {size}
    assert all(picture.startswith(b"\xff\xd8\xff") for picture in found)


# Servers


Twist = Callable[[int, bytes], list[bytes]]


@asynccontextmanager
async def relay(twist: Twist) -> AsyncIterator[int]:
    """A server of the dialect `raw` that gives, for the n-th message, what `twist` makes of it; its port."""
    viewers: list[asyncio.StreamWriter] = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            line = await reader.readline()
            if line.startswith(b"S "):
                viewers.append(writer)
            writer.write(b"ok\n")
            n = 0
            while line.startswith(b"P "):
                size = await reader.readexactly(4)
                message = size + await reader.readexactly(int.from_bytes(size, "big"))
                for said in twist(n, message):
                    for viewer in viewers:
                        if said:
                            viewer.write(said)
                        else:
                            viewer.close()
                n += 1
            await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


def small(port: int, **more) -> Plan:
    return Plan(
        **{
            "dialect": "raw", "ports": (port,), "streams": 1, "viewers_per_stream": 2, "fps": 50.0, "warmup_s": 0.1,
            "duration_s": 0.4, **more,
        }
    )  # fmt: skip


async def ran(plan: Plan) -> dict:
    async with asyncio.timeout(60):
        return await Run(plan).result()


async def test_an_honest_relay_delivers_everything():
    async with relay(lambda _, message: [message]) as port:
        result = await ran(small(port))
    assert (result["sent"], result["expected"], result["delivered"], result["missing"]) == (20, 40, 40, 0)
    assert (result["corrupt"], result["reordered"], result["not_sent"]) == (0, 0, 0)
    assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p99"] <= result["latency_ms"]["max"]
    assert result["lateness_ms"]["p50"] >= 0
    assert result["load_cpu_s"] > 0
    assert result["measured_s"] > 0


async def test_the_first_frame_waits_for_its_time_and_not_for_a_whole_interval() -> None:
    sent = asyncio.Event()
    with load_run._ticking(3600.0, sent.set, first_s=0.01):
        await asyncio.wait_for(sent.wait(), 30)


async def test_frames_that_do_not_come_are_missing():
    async with relay(lambda n, message: [message] if n % 2 else []) as port:
        result = await ran(small(port))
    assert result["missing"] == result["delivered"] == 20
    assert result["corrupt"] == result["reordered"] == 0


async def test_a_frame_with_a_wrong_byte_in_it_is_corrupt():
    def twist(n: int, message: bytes) -> list[bytes]:
        return [message[:20_000] + bytes([message[20_000] ^ 1]) + message[20_001:] if n == 10 else message]

    async with relay(twist) as port:
        result = await ran(small(port))
    assert (result["corrupt"], result["missing"]) == (2, 2)
    assert "picture" in result["first_corrupt"]


async def test_a_frame_that_comes_twice_or_late_is_reordered():
    held: list[bytes] = []

    def twist(n: int, message: bytes) -> list[bytes]:
        if n == 10:
            held.append(message)
            return []
        return [message, held.pop()] if held else [message]

    async with relay(twist) as port:
        result = await ran(small(port))
    assert (result["reordered"], result["corrupt"], result["missing"]) == (2, 0, 0)


async def test_a_server_that_closes_ends_the_run_with_a_sentence():
    async with relay(lambda n, message: [b""] if n == 3 else [message]) as port:
        with pytest.raises(LoadFault, match="viewer of 0: the server ended the connection"):
            await ran(small(port))


async def test_a_server_that_is_not_there_is_named_by_its_port():
    port = free_port()
    with pytest.raises(LoadFault, match=f"cannot connect to 127.0.0.1:{port}"):
        await ran(small(port))


async def test_a_server_that_does_not_answer_ends_the_run_in_time(monkeypatch):
    monkeypatch.setattr(load_run, "SETUP_S", 0.3)
    done = asyncio.Event()

    async def mute(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await done.wait()
        finally:
            writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    try:
        with pytest.raises(LoadFault, match="3 connections were not set up in time"):
            await ran(small(server.sockets[0].getsockname()[1]))
    finally:
        done.set()
        server.close()
        await server.wait_closed()


async def test_a_server_that_speaks_no_websocket_is_told_of():
    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(http, "127.0.0.1", 0)
    try:
        with pytest.raises(LoadFault, match="404 Not Found"):
            await ran(small(server.sockets[0].getsockname()[1], dialect="nchan"))
    finally:
        server.close()
        await server.wait_closed()


async def test_a_plan_without_a_frame_is_refused():
    async with relay(lambda _, message: [message]) as port:
        with pytest.raises(LoadFault, match=r"no frame in 0\.001 s"):
            await ran(small(port, warmup_s=0.001))


@pytest.mark.parametrize("name", ["floor-uvloop", "floor-c"])
@pytest.mark.parametrize("form", ["json", "binary"])
async def test_a_floor_copies_every_byte_to_every_viewer(name, form, tmp_path):
    try:
        async with system(name).started(tmp_path, options=Options()) as running:
            plan = small(running.ports[0], streams=3, format=form)
            result = await ran(plan)
    except Missing as why:
        pytest.skip(str(why))
    assert result["sent"] == 60
    assert (result["missing"], result["corrupt"], result["reordered"]) == (0, 0, 0)


async def test_a_slow_viewer_takes_no_more_than_its_rate_and_disturbs_no_count(tmp_path):
    async with system("floor-uvloop").started(tmp_path, options=Options()) as running:
        # 40 kB frames at 50 a second; it takes five of them in a second.
        slow = Slow(viewers=1, bytes_per_s=200_000)
        result = await ran(small(running.ports[0], duration_s=1.0, slow=slow))
    assert (result["expected"], result["missing"], result["corrupt"], result["reordered"]) == (100, 0, 0, 0)
    assert 1 <= result["slow"]["received"] < 30
    assert result["slow"]["age_ms"]["max"] > 0
    assert 150 <= result["slow"]["transfer_ms"] <= 250


# The process


def in_a_process(plan: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        input=plan,
        capture_output=True,
        cwd=REPOSITORY,
        timeout=60,
        check=False,
    )


async def test_the_process_marks_its_measured_time_and_prints_its_result():
    async with relay(lambda _, message: [message]) as port:
        done = await asyncio.to_thread(in_a_process, msgspec.json.encode(small(port)))
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == [b"start", b"stop"]
    assert json.loads(done.stdout)["delivered"] == 40


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (b"", b"error: Input data was truncated"),
        (b'{"dialect":"telnet","ports":[1]}', b"error: Invalid enum value 'telnet'"),
        (b'{"dialect":"raw","ports":[1],"speed":9}', b"error: Object contains unknown field `speed`"),
    ],
)
def test_the_process_ends_with_a_sentence_about_a_plan_that_it_cannot_read(plan, said):
    done = in_a_process(plan)
    assert done.returncode == 1
    assert done.stderr.startswith(said)
    assert b"Traceback" not in done.stderr


async def test_no_run_can_take_more_files_than_there_are(monkeypatch):
    monkeypatch.setattr(load_run.resource, "getrlimit", lambda _: (256, 1024))
    with pytest.raises(LoadFault, match=r"5000 connections need 5200 open files, the hard limit is 1024"):
        await ran(Plan(dialect="nchan", ports=(1,), idle=5000))


# Alerts of the ML side


WITH_ALERTS = Plan(dialect="watchout", ports=(1,), streams=1, alerts_per_s=4000.0, service_token="secret")


def test_alerts_come_in_order_and_without_a_gap_or_end_the_run() -> None:
    run = Run(WITH_ALERTS)
    faults: list[str] = []
    run.failed = faults.append  # type: ignore[method-assign]
    viewer = Viewer(run, Camera(run, 0), 4096)

    def come(said: bytes) -> None:
        viewer.inbox.buffer[: len(said)] = said
        viewer.message(TEXT, 0, len(said))

    for number in (1, 2, 4, 4):
        come(b'{"type":"alert","id":"a","metadata":{"number":%d}}' % number)
    assert faults == ["viewer of 0: alert 4 came after alert 2", "viewer of 0: alert 4 came after alert 4"]
    assert number_of(bytearray(b'{"type":"alert","message":"of somebody else"}'), 0, 45) is None
    assert number_of(bytearray(b'{"type":"status","number":5}'), 0, 28) is None


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n\r\nslow", "429 slow"),
        (b"", "0 bytes read"),
    ],
)
async def test_alerts_that_are_not_accepted_end_the_run_with_a_sentence(response: bytes, said: str) -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head + await reader.readexactly(int(head.partition(b"Content-Length: ")[2])))
        writer.write(response if len(asked) > 1 else b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}")
        if len(asked) > 1:
            writer.close()
        else:
            await serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    plan = msgspec.structs.replace(WITH_ALERTS, ports=(server.sockets[0].getsockname()[1],))
    alerts = ServiceAlerts(plan, "cam-00000")
    with pytest.raises(LoadFault, match=said):
        await asyncio.wait_for(alerts.send(), 30)
    server.close()
    numbers = [each["metadata"]["number"] for body in asked for each in json.loads(body.partition(b"\r\n\r\n")[2])]
    assert numbers == list(range(1, 2 * BURST + 1))
    assert asked[0].startswith(b"POST /alerts HTTP/1.1\r\n")
    assert b"Authorization: Bearer secret\r\n" in asked[0]


async def test_alerts_that_a_viewer_did_not_get_end_the_run_with_a_sentence(monkeypatch) -> None:
    monkeypatch.setattr(load_run, "GRACE_S", 0.05)
    run, alerts = Run(WITH_ALERTS), ServiceAlerts(WITH_ALERTS, "cam-00000")
    camera = Camera(run, 0)
    viewers = [Viewer(run, camera, 4096), Viewer(run, camera, 4096)]
    alerts.sent = viewers[0].newest_alert = viewers[1].newest_alert = 40
    await run._all_alerts(alerts, viewers)
    viewers[1].newest_alert = 39
    with pytest.raises(LoadFault, match="1 of 2 viewers had not all 40 alerts"):
        await run._all_alerts(alerts, viewers)


def test_alerts_without_a_token_are_refused() -> None:
    with pytest.raises(LoadFault, match="token of the ML side"):
        ServiceAlerts(msgspec.structs.replace(WITH_ALERTS, service_token=None), "cam-00000")


# The whole


@pytest.mark.e2e
async def test_a_run_with_alerts_of_a_camera_and_of_the_ml_side_delivers_all() -> None:
    point = Point(
        "alerts", "", ("watchout",), envelope="alert", picture_bytes=60, streams=1, viewers_per_stream=5, fps=10,
        alerts_per_s=400, warmup_s=0.2, duration_s=0.5,
    )  # fmt: skip
    run = await one(Turn(1, point, "watchout"))
    load = run["load"]
    assert (load["sent"], load["delivered"], load["corrupt"], load["reordered"]) == (5, 25, 0, 0), load
    assert load["alerts"] >= BURST


@pytest.mark.e2e
def test_one_command_measures_watchout_beside_a_floor(tmp_path: Path):
    command = ["--quick", "--only", "json-50x1", "--systems", "watchout", "floor-uvloop", "--no-report", "--out"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *command, str(tmp_path)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    raw = json.loads((tmp_path / "quick.json").read_text())
    assert [(run["system"], run["point"]) for run in raw["runs"]] == [
        ("watchout", "json-50x1"),
        ("floor-uvloop", "json-50x1"),
    ]
    for run in raw["runs"]:
        assert run["load"]["delivered"] > 0
        assert run["load"]["corrupt"] == run["load"]["reordered"] == 0
        assert run["cpu_us_per_delivered"] > 0
        assert run["pss_bytes"] > 0
    names = sorted(process["name"] for process in raw["runs"][0]["processes"])
    assert len(names) == 3
    assert raw["machine"]["cores"] >= 1
