"""``watchout-ctl doctor``: checks settings, home, store, clocks, keys, TLS and ports, and reports what is wrong."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
from honcho.environ import parse

from watchout.common.settings import Settings
from watchout.ctl.doctor.check import ASK_S
from watchout.ctl.doctor.examination import examine
from watchout.ctl.doctor.findings import Finding, Level, worst, wrong
from watchout.ctl.doctor.findings_view import show
from watchout.ctl.doctor.registry import SECTIONS, all_checks
from watchout.ctl.doctor.scrubbing import scrubbed, secrets_of
from watchout.ctl.doctor.setting_sources import judge_dotenv, judge_sources
from watchout.ctl.environment import Failure, WrongSettings, home_option, read_environment, run


@click.command("doctor", short_help="Check settings, store, clocks, keys and ports.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@home_option
def doctor(as_json: bool, home: str | None) -> int:
    """Check everything that watchout needs, and report what is wrong with a remedy.

    It changes nothing and shows no secret. The exit code is 0 when nothing is wrong, even with warnings, 1 when
    something is wrong, and 2 when the settings are invalid.
    """
    dotenv = _dotenv()
    environ = {**os.environ, **({} if home is None else {"WATCHOUT_HOME": home})}
    secrets = secrets_of(dotenv) + secrets_of(environ)
    try:
        settings = read_environment(home).settings
    except Failure as failure:
        _show_invalid(failure, secrets, as_json=as_json)
        return 2
    on_sources = [*judge_sources(environ, dotenv, _mode(Path(".env"))), *judge_dotenv(_dotenv_text(), parse)]
    codes: list[int] = []
    run(settings, _examine_and_show(settings, on_sources, secrets, codes, as_json=as_json))
    return codes[0]


async def _examine_and_show(
    settings: Settings, on_sources: Sequence[Finding], secrets: Sequence[str], codes: list[int], *, as_json: bool
) -> None:
    """Run all checks, print the report, and append the exit code to `codes`."""
    began = time.monotonic()
    findings = [*on_sources, *await examine(settings, all_checks())]
    findings.sort(key=lambda finding: SECTIONS.index(finding.check))
    findings = [scrubbed(finding, secrets) for finding in findings]
    show(findings, as_json=as_json)
    codes.append(1 if worst(findings) is Level.WRONG else 0)
    if time.monotonic() - began >= ASK_S:
        # A thread of the resolver or on a disk may hang; exit without joining it.
        sys.stdout.flush()
        os._exit(codes[0])


def _show_invalid(failure: Failure, secrets: Sequence[str], *, as_json: bool) -> None:
    """Print the faults of settings that cannot be used: on stderr, and with `as_json` also as findings."""
    faults = failure.faults if isinstance(failure, WrongSettings) else (failure.message,)
    findings = [scrubbed(wrong("settings", f"Wrong setting: {fault}."), secrets) for fault in faults]
    if as_json:
        show(findings, as_json=True)
    for finding in findings:
        click.echo(f"watchout-ctl: {finding.sentence[:1].lower()}{finding.sentence[1:].removesuffix('.')}", err=True)


def _dotenv() -> dict[str, str]:
    """Return the variables of .env; none where it cannot be read, which `read_environment` reports."""
    try:
        found: dict[str, str] = parse(Path(".env").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _dotenv_text() -> str:
    """Return the content of .env; empty where it cannot be read."""
    try:
        return Path(".env").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _mode(file: Path) -> int | None:
    """Return the mode of a file, None if there is none."""
    try:
        return file.stat().st_mode
    except OSError:
        return None
