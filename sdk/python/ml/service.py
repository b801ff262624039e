"""The ML service around one function: its HTTP and WebSocket paths, health, and orderly shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from watchout.common.media.arrays import PictureFault
from watchout.common.toolbox.jsontext import JsonFault, read_json, write_json
from watchout.ml.function_calls import Busy, FunctionCalls, FunctionFault
from watchout.ml.shown_frame import Frame, RequestFault, read_body, read_object, read_raw

if TYPE_CHECKING:
    from aiohttp import web

_log: Final = logging.getLogger("watchout.ml")

F = TypeVar("F", bound=Callable[..., Any])

#: Largest request; frames of 16 MiB as base64, or a batch of smaller ones.
MAX_BODY_BYTES: Final = 64 << 20
#: Frames of one WebSocket that are analysed at a time; with that many the socket is not read.
MAX_PER_SOCKET: Final = 32
#: Tells mlbridge that pictures as they are cost less than base64 in JSON (RFC 9110 section 12.5.1).
ACCEPT: Final = "image/*, application/json;q=0.5"
#: Seconds that running calls have to finish at shutdown: honcho kills after 5.
END_S: Final = 4.0


@overload
def serve(look: F, **options: Any) -> F: ...


@overload
def serve(look: None = None, **options: Any) -> Callable[[F], F]: ...


def serve(look: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Serve a function as an ML service until SIGTERM or Ctrl-C. It can be called, or used as a decorator.

    In a module that is imported, not run, it does nothing, as if it were under ``if __name__ == "__main__"``.

    Args:
        look: the function. It gets a `Frame` and returns an `Alert`, a list of alerts, or None. A coroutine function is
            awaited, any other is called in a thread. With `batch` it gets a list of frames and returns a list with one
            result for each. After an exception the response is 500 with its text, and the service goes on.
        options: those of `Service`, and `host` (default ``127.0.0.1``) and `port` (default 8500).

    Returns:
        The function.
    """
    host, port = options.pop("host", "127.0.0.1"), options.pop("port", 8500)
    caller = sys._getframe(1)
    imported = caller.f_code.co_name == "<module>" and caller.f_globals.get("__name__") != "__main__"

    def start(function: Callable[..., Any]) -> Callable[..., Any]:
        service = Service(function, **options)
        if not imported:
            service.run(host, port)
        return function

    return start if look is None else start(look)


class Service:
    """One function as an ML service. `serve` runs one; tests and programs with a server of their own use `app`.

    Args:
        look: the function; see `serve`.
        batch: most frames in one call; None: each call gets one frame, not a list.
        batch_wait_s: how long a frame waits for others of its batch, in seconds.
        concurrency: most calls at a time; 1 for models that are not thread-safe. 16 further frames wait for each call
            (times `batch`); past that the response is 503 with Retry-After.

    Raises:
        TypeError: `look` cannot be called.
        ValueError: a number is out of its range.
    """

    def __init__(
        self,
        look: Callable[..., Any],
        *,
        batch: int | None = None,
        batch_wait_s: float = 0.005,
        concurrency: int = 1,
    ) -> None:
        if not callable(look):
            raise TypeError(f"look is {type(look).__name__}, expected a function of a frame")
        if batch is not None and not 1 <= batch <= 1024:
            raise ValueError(f"batch is {batch}, expected 1 to 1024, or None")
        if not 1 <= concurrency <= 1024:
            raise ValueError(f"concurrency is {concurrency}, expected 1 to 1024")
        self.name = getattr(look, "__name__", type(look).__name__)
        self._make = partial(FunctionCalls, look, concurrency=concurrency, batch=batch, batch_wait_s=batch_wait_s)
        self._calls: FunctionCalls | None = None
        self._sockets: set[Any] = set()
        self._ending = False

    def app(self) -> web.Application:
        """Return the service as an aiohttp application, which can be run once."""
        from aiohttp import web

        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.add_routes(
            [
                web.post("/analyze", self._analyze),
                web.post("/", self._analyze),
                web.get("/health", self._health),
                web.get("/analyze", self._socket),
                web.get("/ws", self._socket),
                web.get("/", self._root),
            ]
        )
        app.on_startup.append(self._on_startup)
        app.on_shutdown.append(self._on_shutdown)
        return app

    def run(self, host: str, port: int) -> None:
        """Serve until SIGTERM or Ctrl-C.

        Args:
            host: address to listen on.
            port: TCP port.

        Raises:
            SystemExit: the port is not available; the text says why.
        """
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(self._run(host, port))

    async def _run(self, host: str, port: int) -> None:
        from aiohttp import web

        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError, RuntimeError):  # not on Windows, not outside the main thread
                loop.add_signal_handler(number, told.set)
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=END_S)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, host, port).start()
            except OSError as exc:
                raise SystemExit(
                    f"port {port} is not available ({exc.strerror or exc}): another program may listen there; give "
                    "another one, serve(look, port=…)"
                ) from None
            shown = runner.addresses[0][1] if runner.addresses else port
            print(f"{self.name} serves http://{host}:{shown} (ML_SERVICE_URL)", flush=True)
            await told.wait()
        finally:
            await runner.cleanup()

    # ── handlers ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _on_startup(self, _: web.Application) -> None:
        self._calls = self._make()

    async def _on_shutdown(self, _: web.Application) -> None:
        self._ending = True
        for socket in list(self._sockets):
            await socket.close(code=1001, message=b"the service is ending")
        if self._calls is not None:
            await self._calls.close(END_S)

    async def _root(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._socket(request)
        return web.Response(text=f"{self.name}: POST /analyze, GET /health, WebSocket at /ws; see docs/ml-team.md\n")

    async def _health(self, _: web.Request) -> web.Response:
        function_calls = self._calls
        assert function_calls is not None
        calls = function_calls.frames + function_calls.failures
        body: dict[str, Any] = {
            "status": "ending" if self._ending else "healthy",
            "function": self.name,
            "frames": function_calls.frames,
            "failures": function_calls.failures,
            "alerts": function_calls.alerts,
            "meanMs": round(1000 * function_calls.busy_s / calls, 1) if calls else None,
        }
        if function_calls.last_fault:
            body["lastFailure"] = function_calls.last_fault
        return _json(body, 503 if self._ending else 200)

    async def _analyze(self, request: web.Request) -> web.Response:
        try:
            body = await request.read()
            content_type = request.content_type
            if content_type.startswith("image/") or (content_type == "application/octet-stream" and body[:1] != b"{"):
                found: Frame | list[object] = read_raw(body, request.headers)
            else:
                found = read_body(body)
            if isinstance(found, list):
                return _json({"answers": await asyncio.gather(*(self._answer_of_batch(each) for each in found))})
            return _json({"alerts": await self._look(found)})
        except (RequestFault, PictureFault) as fault:
            return _json({"error": str(fault)}, 400)
        except Busy as fault:
            return _json({"error": str(fault)}, 503, {"Retry-After": "1"})
        except FunctionFault as fault:
            return _json({"error": str(fault)}, 500)

    async def _answer_of_batch(self, value: object) -> dict[str, Any]:
        try:
            return {"alerts": await self._look(read_object(value))}
        except (RequestFault, PictureFault, FunctionFault, Busy) as fault:
            return {"error": str(fault)}

    async def _look(self, frame: Frame) -> list[dict[str, Any]]:
        assert self._calls is not None
        return await self._calls.look(frame)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        """Serve a WebSocket: each text message is a frame, and is answered with a result that names the frame."""
        from aiohttp import WSMsgType, web

        socket = web.WebSocketResponse(max_msg_size=MAX_BODY_BYTES, heartbeat=20)
        await socket.prepare(request)
        self._sockets.add(socket)
        room = asyncio.Semaphore(MAX_PER_SOCKET)
        tasks: set[asyncio.Task[None]] = set()

        async def answer(data: str | bytes) -> None:
            try:
                message = await self._answer_message(data)
                with contextlib.suppress(ConnectionError):
                    await socket.send_str(write_json(message).decode())
            finally:
                room.release()

        try:
            async for message in socket:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    await room.acquire()
                    task = asyncio.get_running_loop().create_task(answer(message.data), name="watchout ml answer")
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
        finally:
            self._sockets.discard(socket)
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return socket

    async def _answer_message(self, data: str | bytes) -> dict[str, Any]:
        """Return the response to a message; for one that is no frame, an error."""
        names: dict[str, Any] = {}
        try:
            value = read_json(data)
            if isinstance(value, dict):
                names = {key: value[key] for key in ("streamId", "frameId", "timestamp") if key in value}
            return {**names, "alerts": await self._look(read_object(value))}
        except (JsonFault, UnicodeError) as fault:
            return {"error": f"the message is not JSON: {fault}"}
        except PictureFault as fault:  # this frame has no alerts; an error would be taken for one of the service
            return {**names, "alerts": [], "refused": str(fault)}
        except (RequestFault, FunctionFault, Busy) as fault:
            return {**names, "error": str(fault)}


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    from aiohttp import web

    told = {"Accept": ACCEPT, **(headers or {})}
    return web.Response(body=write_json(body), status=status, content_type="application/json", headers=told)
