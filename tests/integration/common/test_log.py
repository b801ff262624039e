"""Logging never raises, whatever is logged and wherever it comes from; seen in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

PREAMBLE = """
import asyncio, logging, os, sys, threading, warnings
from watchout.common import log
log.setup(level="info", format="json", process="p")
l = log.get("common.test")
"""


def run(code: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", PREAMBLE + code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
        check=False, **options,
    )  # fmt: skip


def events(code: str) -> list[dict[str, Any]]:
    found = run(code)
    assert found.returncode == 0, found.stdout
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_values_that_cannot_be_shown_are_named_by_their_type() -> None:
    (event,) = events("""
class Bad:
    def __str__(self): raise ValueError("no")
    __repr__ = __str__
l.warning("came", value=Bad(), half="A\\ud83d", good=1)
""")
    assert event["event"] == "came"
    assert event["value"] == "<a Bad that cannot be shown>"
    assert event["half"] == "A\ud83d"
    assert str(event["good"]) == "1"


def test_everything_that_python_says_by_itself_is_an_event_too() -> None:
    found = events("""
class Bad:
    def __del__(self): raise ValueError("in del")
bad = Bad(); del bad
warnings.warn("old")
logging.getLogger("lib").warning("from %s", "lib")
logging.getLogger("lib").warning("does not %d fit %s", "x")
thread = threading.Thread(target=lambda: 1 / 0, name="worker"); thread.start(); thread.join()
print('{"event":', end=""); print('"printed"}')
sys.stderr.write('{"event": "to stderr"}\\n')
""")
    ignored, old, lib, unfit, failed, printed, said = found
    assert "in del" in ignored["exception"]
    assert (old["event"], old["category"]) == ("old", "UserWarning")
    assert lib["event"] == "from lib"
    assert unfit["event"] == "does not %d fit %s"
    assert "ZeroDivisionError" in failed["exception"]
    assert (printed["event"], said["event"]) == ("printed", "to stderr")


def test_an_exception_that_ends_the_process_is_written_before_it_does() -> None:
    found = run("raise LookupError('the end')")
    assert found.returncode == 1
    (line,) = found.stdout.splitlines()
    assert "the end" in json.loads(line)["exception"]


def test_a_process_without_standard_output_logs_into_no_file_that_it_opens_later() -> None:
    code = """
log.close()
first = os.open("/dev/null", os.O_RDONLY)
assert first > 2, first
"""
    found = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" 0<&- 1>&- 2>&-', sys.executable, PREAMBLE + 'l.info("x")\n' + code],
        timeout=60,
        check=False,
    )
    assert found.returncode == 0


def test_a_reader_that_is_gone_or_a_full_disk_ends_nobody() -> None:
    code = PREAMBLE + "for n in range(50): l.info('x', n=n); print('y')\nlog.close(0.3)\nos._exit(7)"
    for redirect in (">/dev/full 2>&1", "| true", "2>&1 >/dev/full | true"):
        found = subprocess.run(
            ["/bin/bash", "-o", "pipefail", "-c", f'"$0" -c "$1" {redirect}', sys.executable, code],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert found.returncode == 7, (redirect, found)


def test_each_line_names_its_module_in_either_format() -> None:
    (event,) = events("l.info('came')")
    assert event["module"] == "common.test"
    text = run("log.setup(level='info', format='text', process='p')\nl.info('came')").stdout
    assert b" came module=common.test" in text
