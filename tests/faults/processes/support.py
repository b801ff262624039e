"""What the tests of failing processes ask a watchout, and how long a recovery may take."""

from __future__ import annotations

from typing import Any

from tests.kit.clients import JPEG, Camera, Clients, Viewer, eventually, http
from tests.kit.processes import SERVICE_TOKEN, Watchout

MIB = 1 << 20
#: After a router's return everything must be as before within this.
#: The promise is 3 s; a busy machine gets more.
RECOVERY_S = 12.0


async def health(url: str) -> int:
    return (await http(f"{url}/health")).status


async def healthy(started: Watchout, status: int, timeout_s: float) -> None:
    """Wait until `/health` has this status."""

    async def so() -> bool:
        try:
            return await health(started.url) == status
        except OSError:
            return False

    await eventually(so, timeout_s, f"/health is not {status}")


async def stats(url: str) -> dict[str, Any]:
    answer = await http(f"{url}/stats")
    assert answer.status == 200, answer
    return dict(answer.json)


async def counts(url: str) -> tuple[int, int, list[str]]:
    """Producers, video consumers, active streams; nothing while the router is away."""
    answer = await http(f"{url}/stats")
    if answer.status != 200:
        return 0, 0, []
    body = answer.json
    return body["totalProducers"], body["totalVideoConsumers"], body["activeStreams"]


async def push(url: str, stream: str, message: str, **fields: Any) -> None:
    alert = {"streamId": stream, "severity": "high", "message": message, **fields}
    answer = await http(f"{url}/alerts", method="POST", token=SERVICE_TOKEN, body=alert)
    assert 200 <= answer.status < 300, answer


async def more_frames(viewer: Viewer, number: int = 5, timeout_s: float = 30.0) -> None:
    """Wait until so many more frames came."""
    already = len(viewer.frames)
    await eventually(lambda: len(viewer.frames) >= already + number, timeout_s, f"{number} more frames did not come")


def assert_never_fell(viewer: Viewer) -> None:
    ids = viewer.frame_ids
    assert ids == sorted(set(ids)), "frame ids fell, or came twice"


async def registers(camera: Camera, stream: str) -> bool:
    """Whether the camera gets the stream; a router that pauses is no answer in time, and the camera asks again."""
    await camera.send("register", streamId=stream, produces=["video-frame"])
    return bool((await camera.next())["type"] == "success")


async def served(url: str, token: str, clients: Clients) -> tuple[Camera, Viewer]:
    camera, viewer = await clients.camera(url, token), await clients.viewer(url, token, "query")
    stream = await camera.register()
    assert await viewer.subscribe(stream, format="binary") == "streaming"
    await camera.show()
    await viewer.frame(picture=JPEG)
    await push(url, stream, "from the ML side")
    await viewer.find("alert", message="from the ML side")
    return camera, viewer
