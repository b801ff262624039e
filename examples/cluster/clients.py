"""The clients of the demo: a camera that moves to another host, viewers, who posts alerts, and who claims streams.

They are outside of the hosts, as phones and browsers are. What they feel goes into the objects of `felt`.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import time
from collections.abc import Callable, Sequence

import aiohttp
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import WebSocketException

import watchout.client
from examples.cluster.felt import AlertBook, Arrivals, Claims
from watchout.client.errors import WatchoutClientError
from watchout.common.bus.slots import slot_of
from watchout.ctl.sources.scene import CYCLE_S, Scene

FPS = 10
ALERTS_PER_S = 5
#: A camera whose frames are acknowledged no more for this long connects to its next host.
PATIENCE_S = 1.0
#: A connection, a claim or an alert gets an answer within this, or is tried again.
ANSWER_S = 2.0
#: A camera that a gateway has let in waits so long for its stream, whose router may just be replaced.
GRANTED_S = 30.0
#: Between two claims of one slot, and between two attempts of one claim.
CLAIM_EVERY_S = 0.4
TRY_AGAIN_S = 0.05
#: Stream ids of each slot that are claimed in turn.
IDS_OF_A_SLOT = 4

Say = Callable[[str], None]


def _pass_over(_: object) -> None:
    """Say nothing: what was felt is counted."""


def pictures(seed: int) -> list[bytes]:
    """The drawn scene: one cycle of JPEGs, in which a person walks through the room."""
    scene, made = Scene(seed), []
    for number in range(int(CYCLE_S * FPS)):
        encoded = io.BytesIO()
        scene.draw(number / FPS, number).save(encoded, "JPEG", quality=80)
        made.append(encoded.getvalue())
    return made


async def camera(stream: str, urls: Sequence[str], token: str, shown: Sequence[bytes], say: Say) -> None:
    """Send pictures to the first of these gateways, and to the next one when nobody takes them any more."""
    taken = itertools.cycle(shown)
    for number, url in enumerate(itertools.cycle(urls)):
        client = watchout.client.connect(url, token=token, on_phase=_pass_over, on_problem=_pass_over)
        source = client.camera(stream)
        began = time.monotonic()
        try:
            entering = asyncio.ensure_future(source.__aenter__())
            await asyncio.wait([entering], timeout=ANSWER_S)
            if source.connection == 0 and not entering.done():
                entering.cancel()
            await asyncio.wait_for(entering, GRANTED_S)
            if number:
                say(f"the camera of {stream} is at {url}, {time.monotonic() - began:.2f} s after it turned there")
            while True:
                next_at = time.monotonic() + 1 / FPS
                await asyncio.wait_for(source.send(next(taken)), PATIENCE_S)
                await asyncio.sleep(max(0.0, next_at - time.monotonic()))
        except (TimeoutError, asyncio.CancelledError, OSError, WatchoutClientError):
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            say(f"the camera of {stream} gets no answer at {url}, and turns to its next host")
        finally:
            closing = asyncio.ensure_future(client.close())  # its host may be gone: nobody waits for a close frame
            closing.add_done_callback(lambda done: done.cancelled() or done.exception())


async def viewer(
    name: str, stream: str, url: str, token: str, arrivals: Arrivals, book: AlertBook, ml: list[str]
) -> None:
    """Note each frame and alert of a stream at this gateway; alerts of the ML service by themselves, in `ml`."""
    async with (
        watchout.client.connect(url, token=token, on_phase=_pass_over, on_problem=_pass_over) as client,
        client.subscribe(stream, last_frame=False) as events,
    ):
        async for event in events:
            if isinstance(event, watchout.client.Frame):
                arrivals.at.append(time.monotonic())
            elif isinstance(event, watchout.client.Alert):
                if "posted" in event.metadata:
                    book.arrive(name, event.id)
                else:
                    ml.append(event.id)


async def poster(stream: str, urls: Callable[[], Sequence[str]], token: str, book: AlertBook) -> None:
    """Post alerts one after another at the hosts that are there, each until it is accepted, with the same id."""
    headers = {"Authorization": f"Bearer {token}"}
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        for number in itertools.count():
            alert = f"posted-{number}"
            body = {"streamId": stream, "id": alert, "severity": "low", "message": f"alert {number}",
                    "metadata": {"posted": True}}  # fmt: skip
            for attempt in itertools.count(number):
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                    at = urls()
                    async with session.post(f"{at[attempt % len(at)]}/alerts", json=body) as answer:
                        if answer.status == 202:
                            break
                await asyncio.sleep(TRY_AGAIN_S)
            book.accept(alert)
            await asyncio.sleep(1 / ALERTS_PER_S)


async def claimer(slots: int, urls: Callable[[], Sequence[str]], token: str, claims: Claims) -> None:
    """Claim streams of one slot all the time, at the hosts that are there, each until it is granted."""
    names = (f"claimed-{number}" for number in itertools.count())
    ids = list(itertools.islice((each for each in names if slot_of(each, slots) == claims.slot), IDS_OF_A_SLOT))
    for number in itertools.count(claims.slot):
        claims.began(time.monotonic())
        attempt = number
        while not await claim(urls()[attempt % len(urls())], token, ids[number % len(ids)]):
            attempt += 1
            await asyncio.sleep(TRY_AGAIN_S)
        claims.granted(time.monotonic())
        await asyncio.sleep(CLAIM_EVERY_S)


async def claim(url: str, token: str, stream: str) -> bool:
    """Register a stream once and leave again; whether it was granted."""
    address = f"{url.replace('http', 'ws', 1)}/streams/register"
    message = {"type": "register", "clientType": "mobile", "streamId": stream, "produces": ["video-frame"]}
    with contextlib.suppress(OSError, TimeoutError, WebSocketException):
        async with asyncio.timeout(ANSWER_S):
            headers = {"Authorization": f"Bearer {token}"}
            async with open_socket(address, additional_headers=headers, compression=None, close_timeout=0.2) as socket:
                await socket.send(json.dumps(message))
                return bool(json.loads(await socket.recv())["type"] == "success")
    return False
