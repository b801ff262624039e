"""A real Prometheus with the files of `deploy/prometheus`, scraping a gateway of a test every second; and promtool."""

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

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {row["labels"]["alertname"] for row in self.ask("alerts")["alerts"] if row["state"] == "firing"}


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What promtool says about the files of `deploy/prometheus`; the test is skipped where there is none."""
    return subprocess.run(
        [_found("promtool"), *arguments], cwd=FILES, capture_output=True, text=True, timeout=300, check=False
    )


@contextlib.contextmanager
def prometheus(directory: Path, gateway_port: int) -> Iterator[Prometheus]:
    """A Prometheus with the committed files, but that it scrapes each second, and a rule waits for a second."""
    config = (FILES / "prometheus.yml").read_text()
    for before, after in (("127.0.0.1:3000", f"127.0.0.1:{gateway_port}"), ("_interval: 15s", "_interval: 1s")):
        assert before in config
        config = config.replace(before, after)
    (directory / "prometheus.yml").write_text(config)
    rules = re.sub(r"^( +for: )\w+$", r"\g<1>1s", RULES.read_text(), flags=re.MULTILINE)
    assert rules.count("[1h])) > 60\n") == 1, "how long a process has to have run to be missed"
    (directory / RULES.name).write_text(rules.replace("[1h])) > 60\n", "[1h])) > 1\n"))
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
