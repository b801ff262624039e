"""An app on a client of sdk/, as a process that is told what to do and tells what it sees (client.mjs)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.kit.processes import clean_environ

SCRIPT: Final = Path(__file__).parent / "client.mjs"
DEADLINE_S: Final = 30.0

Event = dict[str, Any]


class App:
    """One run of the script. What it told and nobody has asked for yet is kept, in order."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.events: list[Event] = []
        #: Everything that it told.
        self.told: list[Event] = []
        self._news = asyncio.Event()
        self._reader = asyncio.get_running_loop().create_task(self._read())
        self._errors = asyncio.get_running_loop().create_task(self._read_errors())
        self.stderr = b""

    @classmethod
    async def start(
        cls, runtime: Sequence[str], module: Path, url: str, *, token: str | None = None, **options: Any
    ) -> App:
        """Run the script. Without a `token` it asks for each one with an event `token`: answer with `give`."""
        given = {"tokens": True} if token is None else {"token": token}
        process = await asyncio.create_subprocess_exec(
            *runtime, str(SCRIPT), str(module), url, json.dumps({**given, **options}),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=clean_environ(), limit=64 << 20,
        )  # fmt: skip
        app = cls(process)
        try:
            await app.find("started")
        except BaseException:
            await app.end()
            raise
        return app

    async def do(self, what: str, **more: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **more}).encode() + b"\n")
        await self._process.stdin.drain()

    async def find(self, event: str, *, timeout_s: float = DEADLINE_S, **fields: Any) -> Event:
        """The next event of this kind with these fields; those before it are passed over and forgotten."""
        give_up = time.monotonic() + timeout_s
        passed: list[Event] = []
        while True:
            while self.events:
                told = self.events.pop(0)
                assert told["event"] != "fault", told
                if told["event"] == event and all(told.get(name) == value for name, value in fields.items()):
                    return told
                passed.append(told)
            self._news.clear()
            left = give_up - time.monotonic()
            assert left > 0, f"no {event} {fields}, but {passed[-12:]}"
            assert not self._reader.done(), f"ended without {event} {fields}: {passed[-12:]}; {self.stderr[-2000:]!r}"
            try:
                async with asyncio.timeout(left):
                    await self._news.wait()
            except TimeoutError:
                continue

    def take(self, event: str) -> list[Event]:
        """All events of this kind that are kept, taken out of the rest."""
        taken = [told for told in self.events if told["event"] == event]
        self.events = [told for told in self.events if told["event"] != event]
        return taken

    def all(self, event: str) -> list[Event]:
        """All events of this kind so far, whether they were asked for or not."""
        return [told for told in self.told if told["event"] == event]

    async def close(self) -> int:
        """Close the client: the process ends by itself, because nothing of it is left. Its exit code."""
        await self.do("close")
        async with asyncio.timeout(DEADLINE_S):
            code = await self._process.wait()
            await self._reader
        assert not self.all("fault")
        return code

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await asyncio.gather(self._reader, self._errors)
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            event = json.loads(line)
            self.events.append(event)
            self.told.append(event)
            self._news.set()
        self._news.set()

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self.stderr = await self._process.stderr.read()
