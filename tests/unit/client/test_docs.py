"""docs/clients.md: its Python is Python, and names what is there."""

from __future__ import annotations

import ast
import inspect
import re

from tests.kit.processes import REPOSITORY
from watchout import client

PAGE = (REPOSITORY / "docs/clients.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_name_of_the_examples_is_there() -> None:
    assert len(BLOCKS) >= 4
    for block in BLOCKS:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "watchout.client":
                assert node.attr in client.__all__, node.attr


def test_every_argument_of_the_examples_is_taken() -> None:
    signatures = {
        "watchout.client.connect": client.connect,
        "watchout.client.Camera": client.Camera,
        "w.subscribe": client.Client.subscribe,
        "w.camera": client.Client.camera,
        "w.acknowledge": client.Client.acknowledge,
    }
    found = 0
    for block in BLOCKS:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in signatures:
                named = set(inspect.signature(signatures[ast.unparse(node.func)]).parameters)
                assert {keyword.arg for keyword in node.keywords} <= named
                found += 1
    assert found >= 5


def test_the_page_has_every_error_and_every_event() -> None:
    for name in client.__all__:
        kind = getattr(client, name)
        internal = name in ("MissingExtra", "NoAnswer", "ClientClosed", "Refused", "FrameTooLarge", "Unreachable")
        if isinstance(kind, type) and issubclass(kind, Exception) and not internal:
            assert f"`{name}`" in PAGE or f"`watchout.client.{name}`" in PAGE, name
    for name in ("Frame", "Alert", "Status", "Recovery", "Acknowledged"):
        assert f"| `{name}` |" in PAGE
