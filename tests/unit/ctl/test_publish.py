from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest
from websockets.asyncio.server import serve

from tests.kit.cameras import camera, mjpeg
from tests.kit.ctl_command import TINY_JPEG, Ctl, Start
from tests.kit.fake_gateway import TOKEN, FakeGateway, until
from watchout.ctl.client import Edge
from watchout.ctl.commands.publish import Publisher
from watchout.ctl.environment import Failure
from watchout.ctl.sources.open import Source, open_source

ALERT = {"type": "alert", "id": "a1", "streamId": "cam", "severity": "high", "message": "somebody at the door"}


def edge_to(gateway: FakeGateway, **options: float) -> Edge:
    return Edge(url=gateway.url, token=lambda: TOKEN, max_message_bytes=16 << 20, **options)


async def test_a_folder_is_sent_in_order_and_the_socket_closes_in_order(
    gateway: FakeGateway, folder: Path, ctl: Ctl
) -> None:
    ended = await ctl("publish", folder, "--stream", "cam:1", "--fps", 50, "--url", gateway.url)
    assert (ended.code, ended.err) == (0, "")
    assert "sent 5 frames" in ended.out
    assert [picture[-1] for _, _, picture, _ in gateway.frames] == [0, 1, 2, 3, 4]
    assert {(stream, binary) for stream, _, _, binary in gateway.frames} == {("cam:1", False)}
    assert abs(gateway.frames[-1][1] / 1000 - time.time()) < 20
    await until(lambda: gateway.left == [1000])
    assert gateway.heard[0] == {
        "type": "register",
        "clientType": "mobile",
        "streamId": "cam:1",
        "produces": ["video-frame", "alert"],
        "consumes": ["alert"],
        "window": 2,
    }


async def test_binary_frames_carry_the_same_pictures_and_count_ends_a_loop(
    gateway: FakeGateway, folder: Path, ctl: Ctl
) -> None:
    ended = await ctl(
        "publish", folder, "--stream", "cam", "--fps", 20, "--url", gateway.url, "--binary", "--loop", "--count", 12
    )
    assert (ended.code, ended.err) == (0, "")
    assert "sent 12 frames" in ended.out
    assert [(picture[-1], binary) for _, _, picture, binary in gateway.frames] == [(n % 5, True) for n in range(12)]


async def test_without_a_stream_id_the_servers_is_used_and_kept_on_return(gateway: FakeGateway, folder: Path) -> None:
    publisher = Publisher(edge_to(gateway), open_source(str(folder), fps=50, loop=True), binary=True)
    task = asyncio.create_task(publisher.run())
    await until(lambda: gateway.frames)
    await gateway.close_all(1012, "restart")
    await until(lambda: len(gateway.heard) == 2)
    assert "streamId" not in gateway.heard[0]
    assert gateway.heard[1]["streamId"] == gateway.frames[0][0]
    task.cancel()
    await asyncio.wait({task})


async def early_and_late(gateway: FakeGateway, source: Source) -> tuple[int, int]:
    """Publish a source of 20 fps to its end: frames that came early, or gave way to the next one, and late ones.

    After each pause of the machine one frame is early, and no more; also after one before the first frame.
    """
    publisher = Publisher(edge_to(gateway), source)
    await publisher.run()
    await until(lambda: gateway.left)
    gaps = [b[1] - a[1] for a, b in zip(gateway.frames, gateway.frames[1:], strict=False)]
    return sum(gap < 25 for gap in gaps) + publisher.dropped, sum(gap > 65 for gap in gaps)


async def test_frames_are_paced_as_real_time(gateway: FakeGateway, folder: Path) -> None:
    early, late = await early_and_late(gateway, open_source(str(folder), fps=20))
    assert early <= late + 1
    assert gateway.frames[-1][1] - gateway.frames[0][1] >= 4 * 50 - 60


async def test_a_source_that_was_late_is_not_caught_up_with(gateway: FakeGateway) -> None:
    def source():
        for number in range(12):
            if number == 2:
                time.sleep(0.4)
            yield TINY_JPEG

    early, late = await early_and_late(gateway, Source("late", 20.0, source))
    assert early <= late + 1
    assert late >= 1


@pytest.mark.parametrize("code", [1001, 1012, 1013, 4400, 4499, None])
async def test_it_comes_back_after_a_close_that_allows_it_and_after_a_lost_socket(
    gateway: FakeGateway, folder: Path, code: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher = Publisher(edge_to(gateway), open_source(str(folder), fps=50, loop=True), stream_id="cam")
    task = asyncio.create_task(publisher.run())
    await until(lambda: gateway.frames)
    if code is None:
        await gateway.cut_all()
    else:
        await gateway.close_all(code)
    await until(lambda: len(gateway.heard) == 2)
    seen = len(gateway.frames)
    await until(lambda: len(gateway.frames) > seen)
    task.cancel()
    await asyncio.wait({task})
    assert "trying again" in capsys.readouterr().err


@pytest.mark.parametrize(("code", "reason"), [(1008, "AUTH_FAILED"), (4500, "SESSION_ENDED"), (4501, "TAKEN_OVER")])
async def test_a_close_that_forbids_to_return_ends_it_with_a_sentence(
    gateway: FakeGateway, folder: Path, start: Start, code: int, reason: str
) -> None:
    command = await start("publish", folder, "--loop", "--stream", "cam", "--url", gateway.url)
    await until(lambda: gateway.frames)
    await gateway.tell_cameras({"type": "error", "code": reason, "message": "the reason"})
    await gateway.close_all(code, reason)
    ended = await command.end()
    assert ended.code == 1
    assert f"closed the connection with {code} {reason}" in ended.err
    assert "the reason" in ended.err
    assert "Traceback" not in ended.err
    assert "sent " in ended.out
    assert len(gateway.heard) == 1


async def test_a_router_that_is_away_is_tried_again(gateway: FakeGateway, folder: Path) -> None:
    gateway.refusals = [("ROUTING_ERROR", None)]
    await Publisher(edge_to(gateway), open_source(str(folder), fps=50), stream_id="cam").run()
    await until(lambda: gateway.left)
    assert len(gateway.heard) == 2
    assert len(gateway.frames) == 5


async def test_the_stream_of_somebody_else_is_a_failure(gateway: FakeGateway, folder: Path, ctl: Ctl) -> None:
    gateway.refusals = [("UNAUTHORIZED", None)]
    ended = await ctl("publish", folder, "--stream", "cam", "--url", gateway.url)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == "watchout-ctl: UNAUTHORIZED: refused by the test\n"


async def test_a_wrong_token_is_a_failure(gateway: FakeGateway, folder: Path, ctl: Ctl) -> None:
    ended = await ctl("publish", folder, "--stream", "cam", "--url", gateway.url, "--token", "wrong")
    assert ended.code == 1
    assert "the token was refused" in ended.err


async def test_alerts_and_errors_that_come_are_shown_and_cannot_steer_the_terminal(
    gateway: FakeGateway, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher = Publisher(edge_to(gateway), open_source(str(folder), fps=50, loop=True), stream_id="cam")
    task = asyncio.create_task(publisher.run())
    await until(lambda: gateway.cameras)
    await gateway.tell_cameras(ALERT | {"message": "red \x1b[31m\nline", "metadata": {"confidence": 0.9}})
    await gateway.tell_cameras({"type": "error", "code": "INVALID_MESSAGE", "message": "no picture"})
    shown = ""

    def take() -> bool:
        nonlocal shown
        came = capsys.readouterr()
        shown += came.out + came.err
        return "no picture" in shown

    await until(take)
    task.cancel()
    await asyncio.wait({task})
    assert "ALERT high cam: red \\x1b[31m\\nline (confidence=0.9)" in shown
    assert "\x1b[31m" not in shown


async def test_a_socket_that_cannot_keep_up_costs_frames_and_nothing_else(gateway: FakeGateway) -> None:
    big = TINY_JPEG + bytes(1 << 20)

    def pictures():
        for number in range(60):
            yield big + bytes([number])

    gateway.reading.clear()
    publisher = Publisher(edge_to(gateway), Source("big", 100.0, pictures), stream_id="cam", binary=True)
    task = asyncio.create_task(publisher.run())
    await until(lambda: publisher.dropped > 5)
    gateway.reading.set()
    await task
    await until(lambda: gateway.left)
    numbers = [picture[-1] for _, _, picture, _ in gateway.frames]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 59
    assert publisher.sent == len(numbers)
    assert publisher.sent + publisher.dropped == 60


async def test_with_nothing_running_it_says_so_at_once(folder: Path, ctl: Ctl, unused_port: int) -> None:
    ended = await ctl("publish", folder, "--stream", "cam", WATCHOUT_PORT=str(unused_port))
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == (f"watchout-ctl: nothing is running at ws://127.0.0.1:{unused_port} (is `honcho start` up?)\n")


async def test_a_host_name_that_does_not_exist_is_called_so(folder: Path, ctl: Ctl) -> None:
    ended = await ctl("publish", folder, "--stream", "cam", "--url", "ws://nowhere.invalid:3000", "--token", "token")
    assert ended.code == 1
    assert "the host name of ws://nowhere.invalid:3000 cannot be found" in ended.err


async def test_wait_keeps_trying_until_a_gateway_is_there(folder: Path, start: Start, unused_port: int) -> None:
    command = await start(
        "publish", folder, "--stream", "cam", "--fps", 50, "--wait", 60, WATCHOUT_PORT=str(unused_port)
    )
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(command.process.wait(), 1)
    gateway = FakeGateway()
    gateway.port = unused_port
    await gateway.start()
    ended = await command.end()
    await until(lambda: gateway.left)
    await gateway.stop()
    assert (ended.code, ended.err) == (0, "")
    assert len(gateway.frames) == 5


async def test_what_is_no_watchout_is_not_taken_for_one(folder: Path, ctl: Ctl) -> None:
    async def refuse(connection, request):
        return connection.respond(404, "not here")

    async with serve(lambda _: asyncio.sleep(0), "127.0.0.1", 0, process_request=refuse) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        ended = await ctl("publish", folder, "--url", f"ws://127.0.0.1:{port}")
    assert ended.code == 1
    assert "HTTP status 404" in ended.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_quietly(
    gateway: FakeGateway, folder: Path, start: Start, number: signal.Signals
) -> None:
    command = await start("publish", folder, "--loop", "--stream", "cam", "--url", gateway.url)
    await until(lambda: gateway.frames)
    command.process.send_signal(number)
    ended = await command.end()
    assert (ended.code, ended.err) == (128 + number, "")
    assert "sent " in ended.out
    await until(lambda: gateway.left == [1000])


async def test_a_source_that_fails_midway_ends_it_with_its_sentence(gateway: FakeGateway, folder: Path) -> None:
    def failing():
        yield TINY_JPEG
        raise Failure("film.mp4 cannot be decoded to its end")

    with pytest.raises(Failure, match=r"film\.mp4 cannot be decoded"):
        await Publisher(edge_to(gateway), Source("film.mp4", 50.0, failing), stream_id="cam").run()
    await until(lambda: gateway.left == [1000])


async def test_a_bad_file_of_a_folder_is_passed_over_and_told_once(
    gateway: FakeGateway, folder: Path, ctl: Ctl
) -> None:
    (folder / "3.jpg").write_bytes(b"GIF89a")
    (folder / "4.jpg").write_bytes(b"")
    ended = await ctl("publish", folder, "--stream", "cam", "--fps", 50, "--url", gateway.url, "--loop", "--count", 12)
    assert ended.code == 0
    assert "sent 12 frames" in ended.out
    assert "; 2 files skipped" in ended.out
    assert {picture[-1] for _, _, picture, _ in gateway.frames} == {0, 1, 2}
    assert [line.rpartition("/")[2] for line in ended.err.splitlines()] == [
        "3.jpg is not a JPEG; it is skipped", "4.jpg is not a JPEG; it is skipped"
    ]  # fmt: skip


async def test_a_folder_without_a_good_file_fails(gateway: FakeGateway, folder: Path, ctl: Ctl) -> None:
    for path in folder.iterdir():
        path.write_bytes(b"GIF89a")
    ended = await ctl("publish", folder, "--loop", "--stream", "cam", "--url", gateway.url)
    assert ended.code == 1
    assert "none of 5 files is a JPEG" in ended.err


async def test_a_frame_that_the_gateway_would_refuse_is_left_out_and_told(
    gateway: FakeGateway, folder: Path, ctl: Ctl
) -> None:
    (folder / "2.jpg").write_bytes(TINY_JPEG + bytes(70_000))
    ended = await ctl(
        "publish", folder, "--stream", "cam", "--fps", 50, "--url", gateway.url, MAX_MESSAGE_BYTES="65536"
    )
    assert ended.code == 0
    assert len(gateway.frames) == 4
    assert "over MAX_MESSAGE_BYTES (65.5 kB)" in ended.err


async def test_a_camera_that_restarts_is_published_on_and_each_attempt_is_a_line(
    gateway: FakeGateway, start: Start
) -> None:
    def pictures():
        for _ in range(40):
            yield TINY_JPEG
            time.sleep(0.01)

    with camera(mjpeg(pictures)) as port:
        command = await start("publish", f"http://127.0.0.1:{port}/stream", "--stream", "cam", "--url", gateway.url)
        await until(lambda: len(gateway.frames) > 60, 30)
        command.process.terminate()
        ended = await command.end()
    assert f"http://127.0.0.1:{port}/…: the connection ended; trying again in " in ended.err
    assert len(gateway.heard) == 1, "the gateway sees one camera"


async def test_with_once_a_camera_that_goes_away_ends_it_and_not_with_0(gateway: FakeGateway, ctl: Ctl) -> None:
    with camera(mjpeg(lambda: iter([TINY_JPEG] * 200))) as port:
        ended = await ctl(
            "publish", f"http://127.0.0.1:{port}/stream", "--once", "--stream", "cam", "--url", gateway.url
        )
    assert ended.code == 1
    assert "the connection ended" in ended.err
    assert "sent " in ended.out


async def test_a_source_that_ends_while_the_gateway_is_away_ends_the_command(
    gateway: FakeGateway, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchout.ctl.commands.publish.FLUSH_S", 0.2)
    publisher = Publisher(edge_to(gateway), open_source(str(folder), fps=10), stream_id="cam")
    task = asyncio.create_task(publisher.run())
    await until(lambda: gateway.frames)
    await gateway.stop()
    await asyncio.wait_for(task, 30)
    assert publisher.sent + publisher.dropped == 5


async def test_until_the_uplink_is_known_one_frame_is_under_way_and_the_newest_goes_on(gateway: FakeGateway) -> None:
    gateway.modern = True
    gateway.acknowledging.clear()

    def pictures():
        for number in range(40):
            yield TINY_JPEG + bytes([number])

    publisher = Publisher(edge_to(gateway), Source("many", 50.0, pictures), stream_id="cam", binary=True)
    task = asyncio.create_task(publisher.run())
    await until(lambda: publisher.dropped > 5 and gateway.frames)
    assert [picture[-1] for _, _, picture, _ in gateway.frames] == [0]
    gateway.acknowledging.set()
    await gateway.tell_cameras({"type": "ack", "streamId": "cam", "frameId": 1, "timestamp": gateway.frames[0][1]})
    await task
    assert publisher.sent + publisher.dropped == 40
    await until(lambda: gateway.left)
    assert gateway.frames[-1][2][-1] == 39
