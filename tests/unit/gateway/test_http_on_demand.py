"""The first HTTP request waits for what answers it, and whatever happens to its connection meanwhile."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from watchout.common.service import Tasks
from watchout.gateway.http.on_demand import HttpOnDemand, WaitingConnection
from watchout.gateway.listen.dispatch import HttpConnection


class Wire(asyncio.Transport):
    """A transport that notes what it is told."""

    def __init__(self, calls: list[object]) -> None:
        super().__init__()
        self.calls = calls
        self.closing = False

    def pause_reading(self) -> None:
        self.calls.append("pause reading")

    def resume_reading(self) -> None:
        self.calls.append("resume reading")

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True
        self.calls.append("close")

    def abort(self) -> None:
        self.closing = True
        self.calls.append("abort")


class Http(HttpConnection):
    """aiohttp's protocol: notes what it is told."""

    def __init__(self, calls: list[object]) -> None:
        self.calls = calls
        self.answers = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.calls.append(data)

    def eof_received(self) -> bool | None:
        self.calls.append("eof")
        return self.answers

    def pause_writing(self) -> None:
        self.calls.append("pause writing")

    def resume_writing(self) -> None:
        self.calls.append("resume writing")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append(("lost", exc))

    def close(self) -> None:
        self.calls.append("finish and close")

    def detach(self) -> bytes:
        self.calls.append("detach")
        return b"rest"


def begun() -> tuple[WaitingConnection, Wire, list[object]]:
    """A connection that waits, with one request."""
    calls: list[object] = []
    waiting, wire = WaitingConnection(), Wire(calls)
    waiting.connection_made(wire)
    waiting.data_received(b"GET / HTTP/1.1\r\n\r\n")
    assert calls == ["pause reading"]
    return waiting, wire, calls


def test_a_connection_reads_nothing_while_it_waits_and_then_goes_on_with_all_that_it_has() -> None:
    waiting, _, calls = begun()
    waiting.data_received(b"and more")
    waiting.go_on(Http(calls))
    assert calls == ["pause reading", "made", b"GET / HTTP/1.1\r\n\r\nand more", "resume reading"]


def test_from_then_on_everything_is_passed_on() -> None:
    waiting, _, calls = begun()
    waiting.go_on(Http(calls))
    calls.clear()
    waiting.data_received(b"next")
    assert waiting.eof_received() is True
    waiting.pause_writing()
    waiting.resume_writing()
    waiting.close()
    lost = OSError("gone")
    waiting.connection_lost(lost)
    assert calls == [b"next", "eof", "pause writing", "resume writing", "finish and close", ("lost", lost)]


def test_a_connection_that_is_upgraded_is_let_go() -> None:
    waiting, _, calls = begun()
    waiting.go_on(Http(calls))
    assert waiting.detach() == b"rest"
    assert calls[-1] == "detach"


def test_a_pause_of_writing_is_told_before_there_is_something_to_write() -> None:
    waiting, _, calls = begun()
    waiting.pause_writing()
    waiting.go_on(Http(calls))
    assert calls[1:3] == ["made", "pause writing"]
    waiting.resume_writing()
    assert calls[-1] == "resume writing"


def test_a_pause_of_writing_that_has_ended_is_not_told() -> None:
    waiting, _, calls = begun()
    waiting.pause_writing()
    waiting.resume_writing()
    waiting.go_on(Http(calls))
    assert "pause writing" not in calls


@pytest.mark.parametrize("answers", [True, False])
def test_who_sends_no_more_while_the_connection_waits_gets_its_answer_if_there_will_be_one(answers: bool) -> None:
    waiting, wire, calls = begun()
    assert waiting.eof_received() is True
    http = Http(calls)
    http.answers = answers
    waiting.go_on(http)
    assert (calls[-2:-1] if answers else calls[-2:]) == (["eof"] if answers else ["eof", "close"])
    assert wire.closing is not answers


def test_a_connection_that_is_lost_meanwhile_does_not_go_on() -> None:
    waiting, _, calls = begun()
    waiting.connection_lost(None)
    waiting.go_on(Http(calls))
    waiting.go_on(None)
    assert calls == ["pause reading"]


def test_a_connection_that_closes_is_not_read_again() -> None:
    waiting, wire, calls = begun()
    waiting.close()
    waiting.go_on(Http(calls))
    assert wire.closing
    assert "resume reading" not in calls


def test_without_anything_that_answers_the_connection_ends() -> None:
    waiting, _, calls = begun()
    waiting.go_on(None)
    assert calls == ["pause reading", "abort"]


class Server:
    """`HttpServer`, whose connections note what they are told."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.made: list[Http] = []

    async def start(self) -> None:
        self.calls.append("start")

    def make_connection(self) -> HttpConnection:
        self.made.append(Http([]))
        return self.made[-1]

    async def finish_requests(self) -> None:
        self.calls.append("finish requests")

    async def close(self) -> None:
        self.calls.append("close")


class Loads:
    """Loads a server when it may; the first attempts fail, if told so."""

    def __init__(self, failures: int = 0) -> None:
        self.may = threading.Event()
        self.server = Server()
        self.attempts = 0
        self._failures = failures

    def __call__(self, _context: Any) -> Any:
        self.attempts += 1
        assert self.may.wait(30)
        if self.attempts <= self._failures:
            raise ImportError("no aiohttp here")
        return self.server


def on_demand(loads: Loads) -> HttpOnDemand:
    return HttpOnDemand(cast("Any", SimpleNamespace(tasks=Tasks())), loads)


def connect(http: HttpOnDemand) -> list[object]:
    """One connection with one request; what its transport is told."""
    calls: list[object] = []
    connection = http.make_connection()
    connection.connection_made(Wire(calls))
    connection.data_received(b"GET /")
    return calls


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


async def test_all_first_connections_wait_for_one_attempt_and_later_ones_for_none() -> None:
    loads = Loads()
    http = on_demand(loads)
    first = [connect(http) for _ in range(3)]
    assert all(calls == ["pause reading"] for calls in first)
    loads.may.set()
    await until(lambda: len(loads.server.made) == 3)
    assert loads.attempts == 1
    assert loads.server.calls == ["start"]
    assert [made.calls for made in loads.server.made] == [["made", b"GET /"]] * 3
    assert http.make_connection() is loads.server.made[3]


async def test_when_it_cannot_be_loaded_the_connections_end_and_the_next_one_tries_again(
    capfd: pytest.CaptureFixture[str],
) -> None:
    loads = Loads(failures=1)
    loads.may.set()
    http = on_demand(loads)
    calls = connect(http)
    await until(lambda: "abort" in calls)
    calls = connect(http)
    await until(lambda: "resume reading" in calls)
    assert loads.attempts == 2
    said = capfd.readouterr()
    assert "no aiohttp here" in said.out + said.err


async def test_a_gateway_that_ends_answers_the_requests_that_wait() -> None:
    loads = Loads()
    http = on_demand(loads)
    calls = connect(http)
    finishing = asyncio.ensure_future(http.finish_requests())
    await asyncio.sleep(0)
    assert not finishing.done()
    loads.may.set()
    await finishing
    assert calls == ["pause reading", "resume reading"]
    assert loads.server.calls == ["start", "finish requests"]
    await http.close()
    assert loads.server.calls[-1] == "close"


async def test_a_gateway_that_closes_while_it_loads_drops_what_waits() -> None:
    loads = Loads()
    http = on_demand(loads)
    calls = connect(http)
    await until(lambda: loads.attempts == 1)
    async with asyncio.timeout(20):  # it does not wait for the thread, which may be told to go on after 30 s only
        await http.close()
    assert calls == ["pause reading", "abort"]
    loads.may.set()


async def test_nothing_was_asked() -> None:
    loads = Loads()
    http = on_demand(loads)
    await http.finish_requests()
    await http.close()
    assert loads.attempts == 0
