"""Every cause that a sentence can have is in docs/why.md, and so is every field of the access log."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from watchout.common.errors import ErrorCode

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "why.md").read_text()
NAMED = set(re.findall(r"`([a-z_.]+)`", PAGE))
#: Tests that bring causes about with real processes, and ask for them.
REAL = (
    "tests/e2e/test_why.py", "tests/e2e/test_why_causes.py", "tests/faults/processes/test_session_store.py",
)  # fmt: skip
#: Causes that no test brings about so, and why.
NOT_REAL = {
    "bug": "a fault of the gateway, of which none is known",
    "unknown": "a reason of a later release",
    "dropped": "a reason of a later release",
    "not_accepted": "an alert waits so for a second after the start of a router, which answers nobody before",
    "left_out": "needs more than a message of the bus holds",
}


def causes_of(module: str) -> set[str]:
    """The causes in a module: `cause=…`, and the first of two texts that are returned or stand in a table."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / "ctl" / "why" / module).read_text())):
        if isinstance(node, ast.keyword) and node.arg == "cause":
            found |= {each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant)}  # type: ignore[misc]
        elif isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.elts[0], ast.Constant):
            found.add(str(node.elts[0].value))
    return {each for each in found if re.fullmatch(r"[a-z_]+", str(each))}


@pytest.mark.parametrize("module", ["viewers.py", "cameras.py", "alerts.py", "past.py", "explain.py"])
def test_every_cause_is_documented(module: str) -> None:
    causes = causes_of(module)
    assert len(causes) > 3
    fields = {"told", "viewers", "publishers", "frames_in", "frames_out", "alerts_in", "alerts_out"}
    assert causes - fields - {code.lower() for code in ErrorCode} - NAMED == set()


def test_every_field_of_the_access_log_is_documented() -> None:
    source = (ROOT / "gateway" / "why" / "recorder.py").read_text()
    fields = set(re.findall(r'^ +"([a-z_]+)": ', source, re.MULTILINE))
    assert {"connection", "bytes_out", "messages_waiting", "by", "status"} <= fields | {"status"}
    assert fields - NAMED == set()


def test_every_cause_is_brought_about_with_real_processes() -> None:
    tables = PAGE[PAGE.index("## The causes") : PAGE.index("## Access log")]
    rows = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \|", tables, re.MULTILINE)
    documented = {cause for row in rows for cause in re.findall(r"`([a-z_]+)`", row)}
    assert len(documented) > 60
    shown = {
        str(node.value)
        for file in REAL
        for node in ast.walk(ast.parse((ROOT / file).read_text()))
        if isinstance(node, ast.Constant)
    }
    assert documented - shown == set(NOT_REAL)
