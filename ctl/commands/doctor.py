"""``watchout-ctl doctor``: looks at settings, home, store, clocks, keys, TLS and ports, and says what is wrong.

All checks run at the same time, each with a deadline. They change nothing, and no secret gets into what is printed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import click
from honcho.environ import parse

from watchout.common.settings import Settings
from watchout.common.toolbox.reason import reason
from watchout.ctl.doctor import advice, probes
from watchout.ctl.doctor.findings import Finding, Level, scrubbed, secrets_of, worst, wrong
from watchout.ctl.doctor.findings_view import show
from watchout.ctl.environment import Failure, WrongSettings, home_option, read_environment, run
from watchout.identity.authenticator import methods

#: One check may take so long; most answer in milliseconds, and those that wait for somebody have shorter deadlines.
CHECK_S: Final = 10.0

Check = Callable[[Settings], Awaitable[Sequence[Finding]]]


def _in_thread(look: Callable[[Settings], Sequence[Finding]]) -> Check:
    async def check(settings: Settings) -> Sequence[Finding]:
        return await asyncio.to_thread(look, settings)

    return check


CHECKS: Final[Sequence[tuple[str, Check]]] = (
    ("processes", probes.processes),
    ("home", _in_thread(probes.home)),
    ("store", probes.store),
    ("clock", probes.server),
    ("keys", probes.keys),
    ("keys", probes.introspection),
    ("tls", _in_thread(probes.tls)),
    ("ports", probes.ports),
    ("bus", _in_thread(probes.remote_bus)),
    ("ml", probes.ml_service),
)

#: In which the findings are shown.
ORDER: Final = ("settings", "home", "processes", "store", "schema", "clock", "keys", "tls", "ports", "bus", "ml")


@click.command("doctor", short_help="Check settings, store, clocks, keys and ports.")
@click.option("--json", "as_json", is_flag=True, help="The findings as JSON on stdout.")
@home_option
def doctor(as_json: bool, home: str | None) -> int:
    """Look at everything that watchout needs, and say in sentences what is wrong.

    It changes nothing and shows no secret. It ends with 0 when nothing is wrong, though there may be warnings, with 1
    when something is, and with 2 when the settings cannot be used.
    """
    dotenv = _dotenv()
    given = {**os.environ, **({} if home is None else {"WATCHOUT_HOME": home})}
    secrets = secrets_of(dotenv) + secrets_of(given)
    try:
        settings = read_environment(home).settings
    except Failure as failure:
        _unreadable(failure, secrets, as_json=as_json)
        return 2
    findings = [
        *advice.of_sources(given, dotenv, _mode(Path(".env"))),
        *advice.of_dotenv(_dotenv_text(), parse),
        *advice.of_settings(settings, methods(settings)),
    ]
    codes: list[int] = []
    run(settings, _examine(settings, findings, secrets, codes, as_json=as_json))
    return codes[0]


async def _examine(
    settings: Settings, findings: list[Finding], secrets: Sequence[str], codes: list[int], *, as_json: bool
) -> None:
    began = time.monotonic()
    found = await asyncio.gather(*(_bounded(name, check, settings) for name, check in CHECKS))
    findings += [finding for each in found for finding in each]
    findings.sort(key=lambda finding: ORDER.index(finding.check))
    findings[:] = [scrubbed(finding, secrets) for finding in findings]
    show(findings, as_json=as_json)
    codes.append(1 if worst(findings) is Level.WRONG else 0)
    if time.monotonic() - began >= probes.ASK_S:
        # Somebody did not answer: a thread that still waits for him, in the resolver or on a disk, must not be waited
        # for.
        sys.stdout.flush()
        os._exit(codes[0])


async def _bounded(name: str, check: Check, settings: Settings) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(CHECK_S):
            return await check(settings)
    except TimeoutError:
        return [wrong(name, f"This check did not end within {CHECK_S:g} s.", "Look at the network and the disks.")]
    except OSError as exc:
        text = f"This check cannot look: {reason(exc)}{f', {exc.filename}' * bool(exc.filename)}."
        return [wrong(name, text, "Run it as the user of watchout.")]
    except Exception as exc:  # its text may hold anything
        return [wrong(name, f"This check failed by a fault of this program, {type(exc).__name__}.", "Report it.")]


def _unreadable(failure: Failure, secrets: Sequence[str], *, as_json: bool) -> None:
    faults = failure.faults if isinstance(failure, WrongSettings) else (failure.message,)
    findings = [scrubbed(wrong("settings", f"Wrong setting: {fault}."), secrets) for fault in faults]
    if as_json:
        show(findings, as_json=True)
    for finding in findings:
        click.echo(f"watchout-ctl: {finding.sentence[:1].lower()}{finding.sentence[1:].removesuffix('.')}", err=True)


def _dotenv() -> dict[str, str]:
    """What .env has, as far as it can be read: `read_environment` says so when it cannot."""
    try:
        found: dict[str, str] = parse(Path(".env").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _dotenv_text() -> str:
    try:
        return Path(".env").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _mode(file: Path) -> int | None:
    try:
        return file.stat().st_mode
    except OSError:
        return None
