"""A real Prometheus with the files of `deploy/prometheus`, scraping gateways of a test; and promtool.

For the Prometheus of a test time goes faster: all durations of the files, those of `for` and of the windows in the
expressions included, are shorter by the same factor. Expressions and thresholds are the committed ones.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.kit.ports import free_port
from tests.kit.processes import REPOSITORY, Process, clean_environ, poll
from tests.kit.services import missing

FILES: Final = REPOSITORY / "deploy/prometheus"
RULES: Final = FILES / "watchout.rules.yml"
LISTENS_S: Final = 60.0
#: How many times faster time goes: the 15 s between two scrapes become one.
FASTER: Final = 15
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
#: Where the rules have a duration: `for: 1m`, `[5m]`, `offset 10m`, and the seconds that a process has run.
_DURATION: Final = re.compile(r"(?<=for: )(\d+)([smhd])\b|(?<=\[)(\d+)([smhd])(?=\])|(?<=offset )(\d+)([smhd])\b")
_HAS_RUN: Final = "[1h])) > 60\n"
_opener: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Prometheus:
    """A Prometheus that runs."""

    url: str

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer of its API."""
        with _opener.open(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=LISTENS_S) as answer:
            return json.loads(answer.read())["data"]

    def values(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each sample of an instant query, without those that are no number."""
        found = [(row["metric"], float(row["value"][1])) for row in self.ask("query", query=expression)["result"]]
        return [(labels, value) for labels, value in found if not math.isnan(value)]

    def alerts(self) -> list[Alert]:
        """The alerts that fire, or wait for their `for`."""
        return [
            Alert(row["labels"]["alertname"], row["state"], row["labels"], row["annotations"])
            for row in self.ask("alerts")["alerts"]
        ]

    def arms(self) -> dict[str, list[str]]:
        """The expression of each alert, divided at each ``or`` that is not within brackets."""
        rules = [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]
        return {rule["name"]: arms_of(rule["query"]) for rule in rules if rule["type"] == "alerting"}


@dataclass(frozen=True)
class Alert:
    """An alert as Prometheus tells it; `state` is ``pending`` or ``firing``."""

    name: str
    state: str
    labels: dict[str, str]
    annotations: dict[str, str]


def arms_of(expression: str) -> list[str]:
    """The parts of an expression between which it says ``or``, outside of brackets: each is a cause of its own."""
    arms, depth = [""], 0
    for word in re.split(r"(\bor\b|[()])", expression):
        depth += (word == "(") - (word == ")")
        if word == "or" and depth == 0:
            arms.append("")
        else:
            arms[-1] += word
    return [arm.strip() for arm in arms]


def faster_rules(text: str, factor: int = FASTER) -> str:
    """The rules with all durations shorter by this factor.

    Raises:
        ValueError: A duration would not be a whole number of seconds.
    """

    def shorter(found: re.Match[str]) -> str:
        number, unit = (part for part in found.groups() if part is not None)
        return shorter_duration(number, unit, factor)

    if text.count(_HAS_RUN) != 1:
        raise ValueError("how long a process has to have run to be missed is not where it was")
    # In that rule the threshold is a duration: seconds of uptime.
    has_run = shorter_duration("60", "s", factor).removesuffix("s")
    return _DURATION.sub(shorter, text.replace(_HAS_RUN, _HAS_RUN.replace("60", has_run)))


def shorter_duration(number: str, unit: str, factor: int) -> str:
    """So many seconds, minutes or hours divided by the factor, in seconds."""
    seconds, rest = divmod(int(number) * _SECONDS[unit], factor)
    if rest or not seconds:
        raise ValueError(f"{number}{unit} divided by {factor} is no whole number of seconds")
    return f"{seconds}s"


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What promtool says about the files of `deploy/prometheus`; the test is skipped where there is none."""
    return subprocess.run(
        [_found("promtool"), *arguments], cwd=FILES, capture_output=True, text=True, timeout=300, check=False
    )


@contextlib.contextmanager
def prometheus(directory: Path, *gateway_ports: int) -> Iterator[Prometheus]:
    """A Prometheus with the committed files, for which time goes `FASTER`; it scrapes these gateways."""
    directory.mkdir(exist_ok=True)
    config = (FILES / "prometheus.yml").read_text()
    targets = ", ".join(f'"127.0.0.1:{port}"' for port in gateway_ports)
    every = shorter_duration("15", "s", FASTER)
    for before, after in (('"127.0.0.1:3000"', targets), ("_interval: 15s", f"_interval: {every}")):
        assert before in config
        config = config.replace(before, after)
    (directory / "prometheus.yml").write_text(config)
    (directory / RULES.name).write_text(faster_rules(RULES.read_text()))
    port = free_port()
    command = [
        _found("prometheus"), f"--config.file={directory}/prometheus.yml", f"--web.listen-address=127.0.0.1:{port}",
        f"--storage.tsdb.path={directory}/data", "--log.level=warn",
    ]  # fmt: skip
    process = Process("prometheus", command, clean_environ(), directory / "log", directory)
    started = Prometheus(f"http://127.0.0.1:{port}")
    try:
        poll(lambda: _is_ready(started.url) or not process.running, LISTENS_S, "Prometheus is not ready")
        assert process.running, process.output
        yield started
        assert process.running, process.output
    finally:
        process.end()
        shutil.rmtree(directory / "data", ignore_errors=True)


def _is_ready(url: str) -> bool:
    with contextlib.suppress(OSError), _opener.open(f"{url}/-/ready", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def _found(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is not installed: apt-get install prometheus")
    return path
