from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.kit.ctl_command import TINY_JPEG, Ctl, Start
from tests.kit.fake_gateway import TOKEN, FakeGateway, until
from watchout.common.clock import now_ms
from watchout.common.media.codecs import Codec
from watchout.common.media.frames import Frame
from watchout.ctl.client import Edge
from watchout.ctl.commands.watch import StreamViewer, moment, safe_name

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def frame(number: int, picture: bytes = TINY_JPEG, stream: str = "cam") -> Frame:
    return Frame(stream, number, now_ms() - 40, picture=picture)


def watcher(gateway: FakeGateway, **options) -> StreamViewer:
    edge = Edge(url=gateway.url, token=lambda: TOKEN, max_message_bytes=16 << 20)
    return StreamViewer(edge, "cam", **options)


async def test_frames_status_and_alerts_are_shown_a_line_each_and_gaps_are_counted(
    gateway: FakeGateway, start: Start
) -> None:
    command = await start("watch", "cam", "--count", 3, "--max-fps", 5, "--url", gateway.url)
    await until(lambda: gateway.viewers)
    assert gateway.viewers[0][1] == {
        "type": "subscribe",
        "clientType": "dashboard",
        "streamId": "cam",
        "consumes": ["video-frame", "alert"],
        "format": "json",
        "maxFps": 5.0,
        "window": 8,
    }
    await gateway.tell_viewers({"type": "status", "streamId": "cam", "status": "streaming"})
    await gateway.show(frame(1))
    await gateway.tell_viewers(
        {"type": "alert", "id": "a", "streamId": "cam", "severity": "low", "message": "a cat", "frameId": 1}
    )
    await gateway.show(frame(2))
    await gateway.show(frame(6))
    ended = await command.end()
    lines = ended.out.splitlines()
    assert (ended.code, ended.err) == (0, "")
    assert lines[0] == f"watching stream cam at {gateway.url}"
    assert lines[1].endswith("cam is offline")
    assert lines[2].endswith("cam is streaming")
    assert lines[3].startswith(f"frame 1 · {len(TINY_JPEG)} B · ")
    assert lines[4].endswith("ALERT low cam: a cat (frame 1)")
    assert lines[5].startswith("frame 2 ")
    assert lines[6].endswith("· 3 dropped")
    assert lines[7] == "received 3 frames, 3 dropped; 1 alert"
    await until(lambda: gateway.left == [1000])


async def test_json_lines_tell_each_event_without_its_picture(gateway: FakeGateway, start: Start) -> None:
    command = await start("watch", "cam", "--json", "--binary", "--count", 2, "--url", gateway.url)
    await until(lambda: gateway.viewers)
    assert gateway.viewers[0][1]["format"] == "binary"
    await gateway.show(frame(1))
    await gateway.tell_viewers(alert := {"type": "alert", "id": "a", "streamId": "cam", "severity": "low",
                                         "message": "ein Tier", "metadata": {"x": 1}})  # fmt: skip
    await gateway.show(frame(3))
    ended = await command.end()
    assert (ended.code, ended.err) == (0, "")
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert [row["type"] for row in rows] == ["status", "video-frame", "alert", "video-frame"]
    assert (rows[1]["frameId"], rows[1]["bytes"], rows[1]["missed"]) == (1, len(TINY_JPEG), 0)
    assert 0 <= rows[1]["latencyMs"] < 60_000
    assert rows[2].items() >= alert.items()
    assert (rows[3]["missed"], rows[3]["contentType"]) == (1, "image/jpeg")


@pytest.mark.parametrize("wire", [[], ["--binary"]])
async def test_saved_pictures_are_the_cameras_bytes_under_a_name_of_their_stream(
    gateway: FakeGateway, start: Start, tmp_path: Path, wire: list[str]
) -> None:
    command = await start("watch", "cam", "--save", "new/dir", "--count", 3, "--url", gateway.url, *wire)
    await until(lambda: gateway.viewers)
    await gateway.show(frame(7))
    await gateway.show(frame(8, PNG))
    await gateway.show(Frame("cam", 9, 5, picture=b"no known picture", codec=Codec.OPAQUE))
    ended = await command.end()
    assert ended.code == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "new/dir").iterdir()} == {
        "cam-7.jpg": TINY_JPEG,
        "cam-8.png": PNG,
    }


@pytest.mark.parametrize("stream", ["..", ".", ".hidden", "a:b", "a.b", ":" * 128, "-x", "a_b"])
def test_a_file_name_made_of_any_stream_id_stays_in_its_directory(stream: str) -> None:
    name = f"{safe_name(stream)}-4294967295.jpg"
    assert "/" not in name
    assert ":" not in name
    assert not name.startswith(".")
    assert len(name) < 256


def test_two_stream_ids_never_share_a_file_name() -> None:
    ids = ["a:b", "a_b", "a.b", "..", "_.", ".a", "_a", "::", "__"]
    assert len({safe_name(stream) for stream in ids}) == len(ids)


async def test_alerts_only_asks_for_no_frames_and_counts_alerts(gateway: FakeGateway, start: Start) -> None:
    command = await start("watch", "cam", "--alerts-only", "--since", "10m", "--count", 1, "--url", gateway.url)
    await until(lambda: gateway.viewers)
    wish = gateway.viewers[0][1]
    assert wish["consumes"] == ["alert"]
    assert abs(wish["alertsSince"] - (time.time() - 600) * 1000) < 60_000
    await gateway.tell_viewers({"type": "alert", "id": "a", "streamId": "cam", "severity": "low", "message": "m"})
    ended = await command.end()
    assert ended.code == 0
    assert ended.out.endswith("received 1 alert\n")


async def test_after_a_lost_socket_it_asks_for_the_alerts_in_between_and_shows_none_twice(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    viewer = watcher(gateway, count=2)
    task = asyncio.create_task(viewer.run())
    await until(lambda: gateway.viewers)
    alert = {"type": "alert", "id": "a", "streamId": "cam", "severity": "low", "message": "once"}
    await gateway.tell_viewers(alert)
    await gateway.show(frame(1))
    await until(lambda: viewer.frames == 1)
    await gateway.cut_all()
    await until(lambda: len(gateway.heard) == 2 and gateway.viewers)
    assert "alertsSince" not in gateway.heard[0]
    assert abs(gateway.heard[1]["alertsSince"] - time.time() * 1000) < 30_000
    await gateway.tell_viewers(alert)
    await gateway.show(frame(1))
    await gateway.show(frame(2))
    await asyncio.wait_for(task, 30)
    came = capsys.readouterr()
    assert came.out.count("once") == 1
    assert (viewer.frames, viewer.alerts, viewer.dropped) == (2, 1, 0)
    assert "trying again" in came.err


async def test_a_frame_that_is_no_base64_is_told_and_not_saved(
    gateway: FakeGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = asyncio.create_task(watcher(gateway, count=1, folder=tmp_path / "out").run())
    await until(lambda: gateway.viewers)
    await gateway.tell_viewers({"type": "video-frame", "streamId": "cam", "frameId": 1, "data": "%%%"})
    await asyncio.wait_for(task, 30)
    assert "frame 1: data is not base64" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


async def test_frames_of_another_stream_are_not_taken(gateway: FakeGateway) -> None:
    viewer = watcher(gateway, count=1)
    task = asyncio.create_task(viewer.run())
    await until(lambda: gateway.viewers)
    await gateway.tell_viewers({"type": "video-frame", "streamId": "../x", "frameId": 1, "data": "AAAA"})
    await gateway.show(frame(2))
    await asyncio.wait_for(task, 30)
    assert viewer.frames == 1


async def test_a_reader_that_goes_away_ends_it_quietly(gateway: FakeGateway, start: Start) -> None:
    read, write = os.pipe()
    command = await start("watch", "cam", "--url", gateway.url)
    await until(lambda: gateway.viewers)
    os.close(read)
    os.close(write)
    assert "watching" in await command.line()
    command.process.stdout._transport.close()  # type: ignore[union-attr]
    number = 0
    while command.process.returncode is None and number < 1500:
        number += 1
        with contextlib.suppress(ConnectionClosed):  # it ends between two frames
            await gateway.show(frame(number))
        await asyncio.sleep(0.02)
    assert command.process.stderr is not None
    assert (await command.process.stderr.read()).decode() == ""
    assert command.process.returncode == 1


async def test_ctrl_c_ends_it_quietly(gateway: FakeGateway, start: Start) -> None:
    command = await start("watch", "cam", "--url", gateway.url)
    await until(lambda: gateway.viewers)
    command.process.send_signal(2)
    ended = await command.end()
    assert (ended.code, ended.err) == (130, "")
    await until(lambda: gateway.left == [1000])


async def test_a_directory_that_cannot_be_made_is_a_sentence(gateway: FakeGateway, ctl: Ctl, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = await ctl("watch", "cam", "--save", "file/below", "--url", gateway.url)
    assert ended.code == 1
    assert ended.err.startswith("watchout-ctl: Not a directory")


async def test_a_stream_id_that_cannot_be_is_wrong_usage(ctl: Ctl) -> None:
    ended = await ctl("watch", "a/b")
    assert ended.code == 2
    assert "is not a stream id" in ended.err


@pytest.mark.parametrize(("text", "ago_s"), [("30s", 30), ("1.5m", 90), ("2h", 7200), ("1d", 86400)])
def test_a_moment_is_how_long_ago(text: str, ago_s: float) -> None:
    assert abs(now_ms() - ago_s * 1000 - moment(text)) < 5000


def test_a_moment_is_milliseconds_since_the_epoch() -> None:
    assert moment("1729943200000") == 1729943200000
