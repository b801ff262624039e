"""A kind of ML service in one file: declared, registered, checked, documented, and served by the dispatcher."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.polling import until
from tests.kit.relays import Relays
from watchout.common.errors import SettingsError
from watchout.common.media.frames import Frame
from watchout.common.metrics import Metrics
from watchout.common.ml_targets import declaration as ml_targets
from watchout.common.ml_targets import docs, kinds
from watchout.common.ml_targets.declaration import InvalidMlUrl, Results, TargetDeclaration
from watchout.common.ml_targets.reach import reach
from watchout.common.settings import Settings, load
from watchout.ctl.doctor.checks.ml_service import check_ml_service
from watchout.mlbridge.dispatcher import Dispatcher
from watchout.mlbridge.failover import Failover
from watchout.mlbridge.scheduler import Scheduler
from watchout.mlbridge.targets import OnAlerts, Target, TargetFailure, open_target, registry

ALERT = {"severity": "low", "message": "a toy moved"}


# ── the whole kind ───────────────────────────────────────────────────────────────────────────────────────────────


def check_box(parts: Any, options: Any) -> None:
    if parts.path or options.keys() - {"lid"}:
        raise InvalidMlUrl("toy://box[:port][?lid=open]")


class ToyTarget:
    """Returns an alert for each frame of stream ``yard``, and fails for stream ``cellar``."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.public_url = url
        self.timeout_s = timeout_s
        self.frames: list[Frame] = []
        self.on_alerts: OnAlerts | None = None

    async def open(self, on_alerts: OnAlerts) -> None:
        self.on_alerts = on_alerts

    async def analyse(self, frame: Frame, *, isolated: bool = False) -> list[object]:
        del isolated
        self.frames.append(frame)
        if frame.stream_id == "cellar":
            raise TargetFailure("it is dark")
        return [ALERT] if frame.stream_id == "yard" else []

    async def close(self) -> None:
        self.on_alerts = None


TOY = TargetDeclaration(
    name="toy", title="Toy", ports={"toy": 77, "toys": 78}, tls={"toy": "toys"}, forms=("toy(s)://box",),
    results=Results.EACH_FRAME, instead={"toybox": "toy://box"}, extra="toys", options=("lid",), check_parts=check_box,
)  # fmt: skip


def open_toy(url: str, settings: Settings) -> ToyTarget:
    return ToyTarget(url, settings.ml_timeout_s)


# ── what follows from it ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def toy() -> Iterator[None]:
    registry.register(TOY, open_toy)
    yield
    registry.unregister(TOY)


@pytest.mark.usefixtures("toy")
def test_the_setting_takes_its_urls_and_says_what_is_wrong_with_others() -> None:
    assert load({"ML_SERVICE_URL": "TOY://box?lid=open"}).ml_service_url == "toy://box?lid=open"
    for url, says in (
        ("toy://box/deep", "expected toy://box[:port][?lid=open]"),
        ("toybox://box", "is a toybox:// URL, expected toy://box"),
        ("toy:/box.example.com", "two slashes after toy:"),
        ("ftp://box", "toy(s)://box"),
    ):
        with pytest.raises(SettingsError) as raised:
            load({"ML_SERVICE_URL": url})
        assert says in str(raised.value)


def test_a_scheme_that_nobody_declared_is_refused() -> None:
    with pytest.raises(SettingsError, match="is a toy:// URL"):
        load({"ML_SERVICE_URL": "toy://box"})


def test_two_kinds_have_no_scheme_in_common() -> None:
    with pytest.raises(ValueError, match="belong to another kind"):
        ml_targets.declare(
            TargetDeclaration(name="x", title="x", ports={"ws": 1}, forms=(), results=Results.EACH_FRAME)
        )


async def _greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    writer.close()


@pytest.mark.usefixtures("toy")
async def test_its_address_is_checked_and_its_tls_is_named() -> None:
    assert ml_targets.addresses("toys://box") == [("box", 78)]
    async with Relays(_greet) as server:
        address = f"127.0.0.1:{server.port}"
        assert not (await reach(f"toy://{address}", 2.0)).fault
        plain = await reach(f"toys://{address}", 2.0)
        assert plain.fault == "it speaks no TLS: expected toy:// in place of toys://"
        (finding,) = await check_ml_service(Settings(ml_service_url=f"toy://{address}"))
        assert finding.level == "ok"


@pytest.mark.usefixtures("toy")
def test_it_is_in_the_documentation() -> None:
    assert "| Toy | `toy://` | 77 | `toys://` | `lid` | for each frame | `watchout[toys]` |" in docs.render_kinds()


@pytest.mark.usefixtures("toy")
async def test_frames_reach_it_and_alerts_come_back() -> None:
    settings = Settings(ml_service_url="toy://box", ml_fps=100.0)
    target = open_target(settings)
    assert isinstance(target, ToyTarget)
    alerts: list[tuple[object, str]] = []

    def said(values: list[object], frame: Frame | None, *, age_ms: int | None = None) -> None:
        del age_ms
        alerts.extend((value, "" if frame is None else frame.stream_id) for value in values)

    metrics = Metrics()
    scheduler = Scheduler[Frame](
        Failover(1, 4, chance=random.random), max_fps=100.0, max_age_s=60.0, timeout_s=60.0, max_streams=10
    )
    dispatcher = Dispatcher(
        [target], scheduler, metrics=metrics, on_alerts=said, on_refused=print, report=lambda _: True, max_age_s=60.0
    )
    await dispatcher.open()
    try:
        for number, stream in enumerate(("door", "yard", "cellar"), 1):
            dispatcher.on_frame(Frame(stream, number, 1, term=1, picture=b"\xff\xd8\xff").to_bus())
        await until(lambda: len(target.frames) == 3 and not scheduler.in_flight)
        assert target.on_alerts is not None
        target.on_alerts([{"severity": "high", "message": "later"}])
    finally:
        await dispatcher.close(1.0)
    assert alerts == [(ALERT, "yard"), ({"severity": "high", "message": "later"}, "")]
    assert metrics.read()["ml_failures_total"] == 1


@pytest.mark.parametrize("kind", [kinds.HTTP, kinds.WEBSOCKET, kinds.REDIS, kinds.NATS, kinds.ZEROMQ])
def test_every_kind_has_its_module_and_its_target_the_same_declaration(kind: TargetDeclaration) -> None:
    scheme = next(iter(kind.ports))
    made: Any = registry.opener_of(kind)(f"{scheme}://host:1", Settings())
    assert made.declaration is kind
    shape: Target = made
    assert shape.public_url.startswith(f"{scheme}://host:1")


def test_every_way_has_its_example() -> None:
    folder = Path(__file__).parents[3] / "examples/ml_service"
    ways = [way for kind in ml_targets.declarations() for way in kind.exchanges]
    assert len(ways) == 8
    assert {way.example for way in ways} <= {path.name for path in folder.iterdir()}
