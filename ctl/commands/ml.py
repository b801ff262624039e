"""``watchout-ctl ml``: commands for authors of ML services: `try` pictures, `replay` footage, `check` the service.

They ask the service itself, by mlbridge's own target; no part of watchout needs to run.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec
from rich.text import Text

from watchout.common.clock import now_ms
from watchout.common.media.codecs import known_pictures, sniff
from watchout.common.media.frames import Frame
from watchout.common.ml_targets.declaration import Results, of_url
from watchout.common.settings import Settings
from watchout.ctl import environment as env
from watchout.ctl.environment import Failure
from watchout.ctl.terminal import STYLES, Screen, alert_line, counted, printable

if TYPE_CHECKING:  # what the bridge needs is loaded only by the command that needs it
    from watchout.ctl.ml.report import AlertRecord, Replay
    from watchout.ctl.sources.open import Source

#: How long is waited for alerts that come by themselves, after the last picture.
LINGER_S: Final = 2.0
MAX_PICTURES: Final = 1_000
GROUP: Final = "dry-run"
REPORT_FILES: Final = ("report.txt", "report.json", "report.svg")

F = TypeVar("F", bound=Callable[..., Any])


@click.group("ml", short_help="Try, replay and check an ML service.")
def ml() -> None:
    """Work with an ML service by itself; watchout need not run.

    The service is that of ML_SERVICE_URL or --url, asked as mlbridge asks it, with the same ML_… settings.
    """


def _service_options(command: F) -> F:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="What came as JSON on stdout."),
        click.option("--stream", "stream", type=env.stream_id, default="try", show_default=True, metavar="ID",
                     help="Stream id that the pictures carry."),
        click.option("--url", metavar="URL", help="The ML service, instead of ML_SERVICE_URL."),
    ):  # fmt: skip
        command = option(command)
    return command


def _settings(url: str | None) -> Settings:
    # Behind a broker alerts are shared within a group: a dry run must not take those of the bridge that runs.
    settings = env.read_environment(ML_SERVICE_URL=url, ML_GROUP=GROUP).settings
    if settings.ml_service_url is None:
        raise Failure("no ML service is named: give --url, or set ML_SERVICE_URL")
    return settings


def _linger_s(settings: Settings) -> float:
    """Return how long to wait at the end for alerts, in seconds: not at all when each frame has its result."""
    assert settings.ml_service_url is not None
    return 0.0 if of_url(settings.ml_service_url).results is Results.EACH_FRAME else LINGER_S


def _run(settings: Settings, work: Callable[[list[int]], Coroutine[Any, Any, None]]) -> int:
    codes: list[int] = []
    env.run(settings, work(codes))
    return codes[0]


@ml.command("try", short_help="Show pictures to the service, and what it would alert.")
@click.argument("pictures", nargs=-1, required=True, metavar="PICTURE...")
@_service_options
def try_(pictures: Sequence[str], url: str | None, stream: str, as_json: bool) -> int:
    """Show pictures to the ML service, one after the other, and print what it would alert.

    PICTURE is a JPEG, PNG or WebP file. It ends with 0 when every picture was answered and every alert fits, else with
    1; whether there are alerts makes no difference.
    """
    settings = _settings(url)
    if len(pictures) > MAX_PICTURES:
        raise click.UsageError(f"{len(pictures)} pictures, expected at most {MAX_PICTURES}")
    read = [(name, _picture(name)) for name in pictures]
    return _run(settings, functools.partial(_try, settings, read, stream, as_json))


def _picture(name: str) -> bytes:
    try:
        picture = Path(name).read_bytes()
    except OSError as exc:
        raise Failure(f"{name} cannot be read: {exc.strerror or exc}") from None
    if not sniff(picture).is_picture:
        raise Failure(f"{name} is no {known_pictures()}")
    return picture


async def _try(
    settings: Settings, pictures: list[tuple[str, bytes]], stream: str, as_json: bool, codes: list[int]
) -> None:
    from watchout.ctl.ml.report import Outcome
    from watchout.ctl.ml.trial import recording_target

    screen = Screen()
    said: list[Text] = []  # comes before its picture's own line can be written

    def told(each: AlertRecord) -> None:
        line = Text("  ") + alert_line(msgspec.json.decode(each.alert.to_json()))
        said.append(line if each.told else line.append(" held back by the cooldown", "bright_black"))

    def refused(reason: str) -> None:
        said.append(Text(f"  REFUSED {printable(reason)}", "bold red"))

    def show(line: str | Text = "") -> None:
        if not as_json:
            for each in (line, *said) if line else said:
                screen.line(each)
        said.clear()

    service = recording_target(settings, told=told, refused=refused)
    show(f"showing {counted(len(pictures), 'picture')} to {service.public_url}")
    await service.open(lambda _: None)
    try:
        for number, (name, picture) in enumerate(pictures, 1):
            await service.show_in_time(Frame(stream, number, now_ms(), picture=picture))
            look = service.record.looks[-1]
            failed = look.outcome is not Outcome.ANSWERED
            says = printable(look.reason) if failed else f"{look.latency_ms:.0f} ms"
            show(Text(f"{printable(name)} (frame {number}): {says}", "bold red" if failed else ""))
        await asyncio.sleep(_linger_s(settings))
        show()
    finally:
        await service.close()
    record = service.record
    answered = record.count(Outcome.ANSWERED)
    if as_json:
        looks = [{"picture": name, **look.body()} for (name, _), look in zip(pictures, record.looks, strict=True)]
        alerts = [each.body() for each in record.alerts]
        body = {"service": record.service, "pictures": looks, "alerts": alerts,
                "refused": [each.body() for each in record.refusals]}  # fmt: skip
        click.echo(msgspec.json.encode(body))
    show(
        f"{answered} of {counted(len(pictures), 'picture')} answered, {counted(record.alert_count, 'alert')}, "
        f"{record.refusal_count} refused"
    )
    codes.append(1 if record.refusal_count or answered < len(pictures) else 0)


@ml.command("replay", short_help="Play footage through the service, and report.")
@click.argument("video", metavar="VIDEO")
@_service_options
@click.option("--speed", type=click.FloatRange(0.1, 100), metavar="N", help="N times as fast as it was; default 1.")
@click.option("--as-fast-as-possible", "fast", is_flag=True, help="Wait for each answer, leave out nothing.")
@click.option("--fps", type=click.FloatRange(0.01, 240), metavar="N", help="Frames that the service is shown of each "
              "second of footage; default ML_FPS.")  # fmt: skip
@click.option("--report", "folder", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Write report.txt, report.json and report.svg there.")  # fmt: skip
@click.option("--shadow", metavar="URL", help="A second service, shown the same frames; the report lists where the "
              "two disagree.")  # fmt: skip
def replay(
    video: str,
    url: str | None,
    stream: str,
    as_json: bool,
    speed: float | None,
    fast: bool,
    fps: float | None,
    folder: Path | None,
    shadow: str | None,
) -> int:
    """Play footage through the ML service as a camera would, and report alerts, latency and coverage.

    VIDEO is a video file or a folder of JPEGs. At real time or a --speed the service gets the newest frame whenever it
    is free, as with mlbridge, and may miss some. With --as-fast-as-possible it gets each frame, one after the other.
    It ends with 0 when frames were answered and every alert fits, else with 1. Ctrl-C ends it early; what was seen by
    then is reported.
    """
    if fast and speed is not None:
        raise click.UsageError("--speed and --as-fast-as-possible are given, expected one of them")
    settings = _settings(url)
    second = None if shadow is None else _settings(shadow)
    from watchout.ctl.sources.open import open_source

    rate = fps or settings.ml_fps
    source = open_source(video, fps=rate if fast else None)
    if source.fps is None or video == "test":
        raise Failure(f"{source.name} has no end, expected a video file or a folder of JPEGs")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    job = Playing(settings, second, source, stream, fps=rate, speed=None if fast else speed or 1.0, quiet=as_json)

    async def work(codes: list[int]) -> None:
        try:
            await job.run()
        except asyncio.CancelledError:
            if job.frames:
                _publish(job.result(interrupted=True), job.note, folder, as_json=as_json)
            raise
        played = job.result()
        _publish(played, job.note, folder, as_json=as_json)
        codes.append(1 if played.first.refusal_count or not played.first.latencies() else 0)

    return _run(settings, work)


class Playing:
    """A run of ``ml replay``: sends the frames of a video or of a folder of JPEGs to one ML service, or to two.

    `fps` is the rate of frames per second of footage, `speed` the multiple of real time; None: each frame is sent after
    the result of the last one. `run` raises `Failure` when the footage cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        second: Settings | None,
        source: Source,
        stream: str,
        *,
        fps: float,
        speed: float | None,
        quiet: bool,
    ) -> None:
        from watchout.ctl.ml.trial import recording_target

        self.note = ""
        #: Of the footage, so far.
        self.frames = 0
        self._length_s = self._took_s = 0.0
        self._settings = settings
        self._source = source
        self._stream = stream
        self._fps = fps
        self._speed = speed
        self._quiet = quiet
        self._screen = Screen()
        self._linger_s = max(_linger_s(each) for each in (settings, second) if each is not None)
        self._first = recording_target(settings, told=self._told, refused=self._refused)
        self._second = None if second is None else recording_target(second, told=lambda _: None, refused=lambda _: None)

    async def run(self) -> None:
        """Play the footage to its end. Raises `Failure` when it cannot be read."""
        from watchout.ctl.ml.trial import play_fast, play_paced

        first, second = self._first, self._second
        if not self._quiet:
            beside = "" if second is None else f" and {second.public_url}"
            self._screen.line(f"playing {self._source.name} to {first.public_url}{beside}")
        began, lingered_s = time.monotonic(), 0.0
        try:
            if second is not None:
                await second.open(lambda _: None)
            if self._speed is None:
                self.frames, self._length_s = await play_fast(
                    self._source, self._stream, first, second, linger_s=self._linger_s, progress=self._progress
                )
            else:
                self.frames, self._length_s, left_out = await play_paced(
                    self._source, self._stream, first, second, self._settings, fps=self._fps, speed=self._speed,
                    linger_s=self._linger_s, progress=self._progress,
                )  # fmt: skip
                if left_out:
                    self.note = f"{counted(left_out, 'frame')} not compared: the shadow was too far behind\n"
            lingered_s = self._linger_s
        finally:
            self._took_s = max(time.monotonic() - began - lingered_s, 1e-3)
            if second is not None:
                await second.close()
            self._screen.close()

    def result(self, *, interrupted: bool = False) -> Replay:
        """Return the finished run."""
        from watchout.ctl.ml.report import Replay

        return Replay(
            footage=self._source.name,
            length_s=self._length_s,
            took_s=self._took_s,
            frames=self.frames,
            fps=self._fps,
            speed=self._speed,
            first=self._first.record,
            second=None if self._second is None else self._second.record,
            interrupted=interrupted,
        )

    def _told(self, each: AlertRecord) -> None:
        from watchout.ctl.ml.report import alert_text

        if not self._quiet and each.told:
            self._screen.line(Text("ALERT ") + Text(alert_text(each), STYLES.get(each.alert.severity, "")))

    def _refused(self, reason: str) -> None:
        if not self._quiet:
            self._screen.line(Text(f"REFUSED {printable(reason)}", "bold red"))

    def _progress(self, number: int, at_s: float) -> None:
        from watchout.ctl.ml.report import clock_of

        assert self._source.fps is not None
        self.frames, self._length_s = number, number / self._source.fps
        if not self._quiet:
            shown = len(self._first.record.looks)
            self._screen.refresh(f"{clock_of(at_s)} · {counted(number, 'frame')} · shown {shown}")


def _publish(played: Replay, note: str, folder: Path | None, *, as_json: bool) -> None:
    from watchout.ctl.ml.drawing import draw

    body = msgspec.json.encode(played.body())
    text = played.text() + note
    if folder is not None:
        for name, content in zip(REPORT_FILES, (text.encode(), body + b"\n", draw(played).encode()), strict=True):
            (folder / name).write_bytes(content)
    if as_json:
        click.echo(body)
        return
    click.echo("\n" + text, nl=False)
    if folder is not None:
        click.echo(f"written to {folder}: {', '.join(REPORT_FILES)}")


@ml.command("check", short_help="Say what a service gets wrong of the contract.")
@click.argument("url", required=False)
@click.option("--picture", "pictures", multiple=True, metavar="FILE", help="A picture on which the service should "
              "alert; may be given several times, they are shown in that order.")  # fmt: skip
@click.option("--load", "load_s", type=click.FloatRange(0, 60), default=2.0, show_default=True, metavar="S",
              help="How long several streams ask at once; 0: not at all.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON on stdout.")
def check(url: str | None, pictures: Sequence[str], load_s: float, as_json: bool) -> int:
    """Ask the ML service at URL (or ML_SERVICE_URL) all that mlbridge will ask it, and more, and say what is wrong.

    It ends with 0 when nothing is wrong, though there may be warnings, and with 1 when something is.
    """
    from watchout.ctl.doctor.findings import Level, worst
    from watchout.ctl.doctor.findings_view import show
    from watchout.ctl.ml.probes import examine

    settings = _settings(url)
    read = [_picture(name) for name in pictures]

    async def work(codes: list[int]) -> None:
        findings = await examine(settings, read, load_s=load_s)
        show(findings, as_json=as_json)
        codes.append(1 if worst(findings) is Level.WRONG else 0)

    return _run(settings, work)
