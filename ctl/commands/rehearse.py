"""``watchout-ctl rehearse``: cameras and viewers as load on a system, and a report with a verdict for CI."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from watchout.common.latency.rows import milliseconds
from watchout.common.settings import Settings, table
from watchout.ctl import environment as env
from watchout.ctl.client import Edge
from watchout.ctl.environment import Failure
from watchout.ctl.rehearse import plan as limits
from watchout.ctl.rehearse.conductor import Conductor, Rehearsal
from watchout.ctl.rehearse.crew import Crew
from watchout.ctl.rehearse.memory import LEAST_SLOPE_S
from watchout.ctl.rehearse.ml_service import MlProfile
from watchout.ctl.rehearse.objectives import EXIT_CODES, GOALS, read_objectives
from watchout.ctl.rehearse.own_system import FIXED
from watchout.ctl.rehearse.page import page
from watchout.ctl.rehearse.pictures import LEAST_BYTES, synthetic
from watchout.ctl.rehearse.plan import Scenario, ViewerRole
from watchout.ctl.rehearse.result import Result
from watchout.ctl.rehearse.soak import GATEWAYS as SOAK_GATEWAYS
from watchout.ctl.rehearse.text import report_lines, scenario_line
from watchout.ctl.sources.open import open_source
from watchout.ctl.terminal import printable

#: Exit code when it was ended early: what was seen is reported, and is no verdict on the whole.
INTERRUPTED: Final = 130
#: Pictures of footage that are sent in turns, and how many bytes they have together at most.
FOOTAGE_PICTURES: Final = 60
FOOTAGE_BYTES: Final = 40_000_000
#: Seconds between two lines of figures where they cannot be refreshed.
LINE_EVERY_S: Final = 5
#: Objectives that are left out where they cannot be measured, unless they are asked for.
OPTIONAL: Final = frozenset({"unexplained"})
#: Options of the rehearsal's ML service, by parameter.
ML_OPTIONS: Final = {"ml_latency": "--ml-latency", "ml_fail": "--ml-fail", "alert_every": "--alert-every"}


@click.command("rehearse", short_help="Put cameras and viewers on a system, and judge it.")
@click.option("--minutes", type=click.FloatRange(0, limits.MAX_MINUTES, min_open=True), default=1.0, show_default=True,
              metavar="N", help="How long the load lasts.")  # fmt: skip
@click.option("--cameras", type=click.IntRange(1, limits.MAX_CAMERAS), default=2, show_default=True, metavar="N",
              help="Cameras, each with a stream.")  # fmt: skip
@click.option("--fps", type=click.FloatRange(0.1, limits.MAX_FPS), default=10.0, show_default=True, metavar="N",
              help="Frames per second of each camera.")  # fmt: skip
@click.option("--size", "frame_bytes", type=click.IntRange(LEAST_BYTES, limits.MAX_FRAME_BYTES), default=30_000,
              show_default=True, metavar="BYTES", help="Size of a drawn frame.")  # fmt: skip
@click.option("--footage", metavar="FILE", help="Send pictures of a video file, a JPEG or a folder of JPEGs instead.")
@click.option("--viewers", type=click.IntRange(0, limits.MAX_VIEWERS), default=6, show_default=True, metavar="N",
              help="Viewers that take every frame, over all streams.")  # fmt: skip
@click.option("--slow", type=click.IntRange(0, limits.MAX_VIEWERS), default=0, metavar="N",
              help="Viewers that take --slow-fps frames a second.")  # fmt: skip
@click.option("--slow-fps", type=click.FloatRange(0.1, limits.MAX_FPS), default=2.0, show_default=True, metavar="N",
              help="Frames per second that a slow viewer takes.")  # fmt: skip
@click.option("--flapping", type=click.IntRange(0, limits.MAX_VIEWERS), default=0, metavar="N",
              help="Viewers that come and go.")  # fmt: skip
@click.option("--hidden", type=click.IntRange(0, limits.MAX_VIEWERS), default=0, metavar="N",
              help="Viewers that pause their view again and again, as tabs in the background do.")  # fmt: skip
@click.option("--ml-latency", type=click.FloatRange(0, 600_000), metavar="MS",
              help="How long the rehearsal's ML service takes for a frame; 50 ms.")  # fmt: skip
@click.option("--ml-fail", type=click.FloatRange(0, 100), metavar="PERCENT",
              help="Share of its answers that are errors; 0.")  # fmt: skip
@click.option("--alert-every", type=click.FloatRange(0.1, 3600), metavar="S",
              help="Seconds between two of its alerts of a stream; 2.")  # fmt: skip
@click.option("--ml-listen", metavar="HOST:PORT", help="Run the rehearsal's ML service where ML_SERVICE_URL of a "
              "running system points to.")  # fmt: skip
@click.option("--gateways", type=click.IntRange(1, limits.MAX_GATEWAYS), metavar="N",
              help="Gateways at one port, of the system that is started; 1, with --soak 2.")  # fmt: skip
@click.option("--set", "given", multiple=True, metavar="NAME=VALUE", help="A setting of the system that is started; "
              "may be repeated.")  # fmt: skip
@click.option("--objective", "objectives", multiple=True, metavar="NAME=VALUE", help="What is to be "
              f"met: {', '.join(GOALS)}; 'off' leaves one out. May be repeated.")  # fmt: skip
@click.option("--soak", is_flag=True, help="Everything at once on a system of its own with two gateways, and whether "
              "any process grows; see docs/rehearse.md.")  # fmt: skip
@click.option("--own-lag", type=click.FloatRange(1, 60_000), default=100.0, show_default=True, metavar="MS",
              help="How late the load's own processes may be before nothing is decided.")  # fmt: skip
@click.option("--processes", type=click.IntRange(1, limits.MAX_PROCESSES), metavar="N",
              help="Processes of clients; without it as many as the load needs.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), metavar="N", help="Who comes when follows from it.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, writable=True, allow_dash=True), metavar="FILE",
              help="Write the report as JSON; - for stdout, in place of the text.")  # fmt: skip
@click.option("--html", "html_file", type=click.Path(dir_okay=False, writable=True), metavar="FILE",
              help="Write the report with plots as one HTML file.")  # fmt: skip
@click.option("--url", metavar="URL", help="Rehearse with a running system, not one of its own.")
@click.option("--token", "tokens", multiple=True, metavar="TOKEN", help="Session token for it, instead of "
              "WATCHOUT_TOKEN; several are used in turns.")  # fmt: skip
@click.option("--wait", "wait_s", type=click.FloatRange(0), default=0.0, metavar="S",
              help="Seconds in which the first connection to it is tried again.")  # fmt: skip
@click.option("--home", metavar="DIR", help="Home of the running system, for what its processes know; with it, or "
              "--url, no system is started.")  # fmt: skip
def rehearse(**options: Any) -> int:
    """Put cameras and viewers on a system for some minutes, and say whether it met its objectives.

    Without --url and --home it starts a system of its own in a temporary home, with an ML service that takes its time
    and fails as asked, and removes all of it at the end.

    The exit code is 0 when all objectives were met, 1 when one was missed, 2 for wrong usage, 3 when the load itself
    was the limit, so that nothing is decided. Ctrl-C ends early, with the report of what was seen, and exit code 130.
    """
    running = options["url"] is not None or options["home"] is not None
    _check(options, running=running)
    environment = env.read_environment(options["home"])
    wanted = _wanted(options, environment, running=running)
    outcome: list[Result] = []
    env.run(wanted.settings, _conduct(wanted, outcome))
    result = outcome[0]
    _write(result, options["json_file"], options["html_file"])
    return INTERRUPTED if result.interrupted else EXIT_CODES[result.verdict]


def _check(options: dict[str, Any], *, running: bool) -> None:
    """Raise `click.UsageError` for options that do not fit together, and for a report that could not be written."""
    for name in ("json_file", "html_file"):
        if options[name] not in (None, "-") and not Path(options[name]).absolute().parent.is_dir():
            raise click.UsageError(f"{options[name]} cannot be written: there is no such directory")
    if running and options["soak"]:
        raise click.UsageError("--soak is for a system of its own: leave --url and --home out")
    if not running:
        for name in ("tokens", "ml_listen"):
            if options[name]:
                option = "--token" if name == "tokens" else "--ml-listen"
                raise click.UsageError(f"{option} is for a running system: give --url or --home as well")
        return
    if options["gateways"] is not None:
        raise click.UsageError("--gateways is for a system of its own: leave --url and --home out")
    if options["given"]:
        raise click.UsageError("--set is for a system of its own: settings of a running system cannot be changed")
    if options["ml_listen"] is None:
        for name, option in ML_OPTIONS.items():
            if options[name] is not None:
                raise click.UsageError(
                    f"{option} is for the rehearsal's ML service: that of a running system cannot be changed. Give "
                    "--ml-listen with the address of its ML_SERVICE_URL, or leave --url and --home out"
                )


def _wanted(options: dict[str, Any], environment: env.Environment, *, running: bool) -> Rehearsal:
    scenario = Scenario(
        cameras=options["cameras"], fps=options["fps"], frame_bytes=0 if options["footage"] else options["frame_bytes"],
        viewers={role: options["viewers" if role is ViewerRole.STEADY else role] for role in ViewerRole},
        slow_fps=options["slow_fps"], seconds=options["minutes"] * 60,
    )  # fmt: skip
    seed = random.SystemRandom().randrange(2**32) if options["seed"] is None else options["seed"]
    settings, given = environment.settings, _pairs(options["given"])
    edge, tokens = None, list(options["tokens"])
    if running:
        edge = Edge(
            url=env.edge_url(options["url"], settings),
            token=_token_of(environment),
            token_origin="" if tokens else env.token_origin(None, environment),
            max_message_bytes=settings.max_message_bytes, wait_s=options["wait_s"],
            home=settings.home if options["url"] is None else None,
        )  # fmt: skip
    return Rehearsal(
        scenario=scenario,
        limits=_limits(options, settings, scenario, ml=not running or bool(options["ml_listen"])),
        pictures=_pictures(options["footage"], scenario, seed),
        seed=seed, processes=options["processes"], own_lag_ms=options["own_lag"],
        ml=_ml(options) if not running or options["ml_listen"] else None,
        edge=edge, tokens=tokens, settings=settings, given=given,
        soak=options["soak"], gateways=options["gateways"] or (SOAK_GATEWAYS if options["soak"] else 1),
        optional=OPTIONAL - {text.partition("=")[0].strip() for text in options["objectives"]},
    )  # fmt: skip


def _token_of(environment: env.Environment) -> Callable[[], str]:
    """Return what returns the token of the environment; it raises `Failure` only when it is called."""

    def token() -> str:
        return env.token_source(None, environment)()

    return token


def _limits(options: dict[str, Any], settings: Settings, scenario: Scenario, *, ml: bool) -> dict[str, float]:
    """Return the objectives: those given, and defaults for what this rehearsal can measure."""
    texts: Sequence[str] = options["objectives"]
    glass = float(settings.latency_objective_ms)
    defaults = {"sent": 0.9, "lost-connections": 0.0, "unexplained": 0.0}
    if scenario.viewers[ViewerRole.STEADY]:
        defaults |= {"glass-p99": glass, "delivered": 0.95}
    if ml:
        defaults["alert-p99"] = float(settings.alert_latency_objective_ms or glass)
        if any(scenario.viewers.values()):
            defaults["alerts-lost"] = 0.0
    if options["soak"]:  # readers of MJPEG are among what gateways explain, and not among what clients count
        del defaults["unexplained"]
    try:
        found = read_objectives(texts, defaults)
    except ValueError as error:
        raise click.UsageError(f"--objective: {error}") from None
    if "memory-slope" in found and scenario.seconds < 2 * LEAST_SLOPE_S:
        raise click.UsageError(f"--objective memory-slope needs --minutes {2 * LEAST_SLOPE_S / 60:g} or more")
    return found


def _ml(options: dict[str, Any]) -> MlProfile:
    base = MlProfile()
    host, port = base.host, 0
    if options["ml_listen"]:
        host, colon, text = options["ml_listen"].rpartition(":")
        if not colon or not host or not text.isdecimal() or not 0 < int(text) < 65536:
            raise click.UsageError(f"--ml-listen is {options['ml_listen']!r}, expected HOST:PORT")
        host, port = host.strip("[]"), int(text)
    return MlProfile(
        host=host, port=port,
        latency_ms=base.latency_ms if options["ml_latency"] is None else options["ml_latency"],
        failures=(options["ml_fail"] or 0.0) / 100,
        alert_every_s=base.alert_every_s if options["alert_every"] is None else options["alert_every"],
    )  # fmt: skip


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise click.UsageError(f"--set {printable(text)} is not NAME=VALUE")
        if name in FIXED:
            raise click.UsageError(f"--set {name}: a rehearsal sets it for its own system")
        if name not in {spec.env for _, spec, _ in table()}:
            raise click.UsageError(f"--set {printable(name)}: there is no such setting; docs/settings.md has all")
        found[name] = value
    return found


def _pictures(footage: str | None, scenario: Scenario, seed: int) -> list[bytes]:
    if footage is None:
        return list(synthetic(scenario.frame_bytes, random.Random(seed).random))
    source = open_source(footage, fps=scenario.fps)
    if source.fps is None:
        raise Failure(f"{source.name} is live, expected a video file, a JPEG or a folder of JPEGs")
    found, total = [], 0
    for picture in itertools.islice(source.pictures(), FOOTAGE_PICTURES):
        if not isinstance(picture, bytes):
            continue
        found.append(picture)
        total += len(picture)
        if total > FOOTAGE_BYTES:
            break
    if not found:
        raise Failure(f"{source.name} has no picture")
    return found


# ── while it runs ────────────────────────────────────────────────────────────────────────────────────────────────────


async def _conduct(wanted: Rehearsal, outcome: list[Result]) -> None:
    """Run the rehearsal with a display of its progress on stderr, and append the result."""
    console = Console(stderr=True, highlight=False)
    console.print(Text(f"rehearsal of {scenario_line(wanted.scenario)} (--seed {wanted.seed})"), soft_wrap=True)
    display = _Display(console, wanted.scenario.seconds)
    with display:
        outcome.append(await Conductor(wanted, display.stage, display.second).run())


class _Display:
    """Shows the progress: a line that is refreshed on a terminal, else a line every `LINE_EVERY_S` seconds."""

    def __init__(self, console: Console, seconds: float) -> None:
        self._console = console
        self._seconds = seconds
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._said_at = 0.0

    def __enter__(self) -> None:
        if self._live is not None:
            self._live.start()

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def stage(self, text: str) -> None:
        """Say what begins."""
        self._console.print(Text(text), soft_wrap=True)

    def second(self, crew: Crew) -> None:
        """Show the figures of the last seconds."""
        at_s = max(0.0, min(crew.at_s, self._seconds))
        if self._live is not None:
            line = figures_line(crew, at_s, self._seconds)
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)
        elif at_s - self._said_at >= LINE_EVERY_S:
            self._said_at = at_s
            self._console.print(Text(figures_line(crew, at_s, self._seconds)), soft_wrap=True)


def figures_line(crew: Crew, at_s: float, seconds: float) -> str:
    """Return the live figures: those of the last complete point of the series."""
    points = crew.series.points()
    if len(points) < 2:
        return f"{at_s:.0f} of {seconds:.0f} s"
    last = points[-2]
    glass, alert, lag = (each.histogram().quantile_ms(0.99) for each in (last.glass, last.alert, last.lag))
    sent, read, dropped = (round(count / last.seconds) for count in (last.sent, last.received, last.missing))
    return (
        f"{at_s:.0f} of {seconds:.0f} s · sent {sent}/s · read {read}/s · dropped {dropped}/s · glass p99 "
        f"{milliseconds(glass)} · alert p99 {milliseconds(alert)} · own lag {milliseconds(lag)}"
    )


def _write(result: Result, json_file: str | None, html_file: str | None) -> None:
    data = msgspec.json.format(msgspec.json.encode(result), indent=1)
    if json_file == "-":
        click.echo(data)
    else:
        for line in report_lines(result):
            click.echo(line)
        if json_file is not None:
            Path(json_file).write_bytes(data + b"\n")
    if html_file is not None:
        Path(html_file).write_text(page(result), encoding="utf-8")
