"""The ways of docs/architecture.md, and a record in which order their functions are called in this thread."""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

PAGE: Final = Path(__file__).parents[2] / "docs/architecture.md"


def resolve(name: str) -> Callable[..., Any]:
    """The function of a dotted name below `watchout`: module, class and method.

    Raises:
        LookupError: there is no such function.
    """
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module("watchout." + ".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(found, part):
                raise LookupError(name)
            found = getattr(found, part)
        return found  # type: ignore[no-any-return]
    raise LookupError(name)


@contextlib.contextmanager
def recorded(names: list[str]) -> Iterator[list[str]]:
    """The list of those of these functions that were called so far, each once, in the order of their first calls."""
    codes: dict[CodeType, str] = {resolve(name).__code__: name for name in names}
    called: list[str] = []

    def record(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and (name := codes.pop(frame.f_code, None)) is not None:
            called.append(name)

    before = sys.getprofile()
    sys.setprofile(record)
    try:
        yield called
    finally:
        sys.setprofile(before)


def ways() -> dict[str, list[list[str]]]:
    """The lists of calls of docs/architecture.md: by section, for each process the functions in their order."""
    page = PAGE.read_text()
    found: dict[str, list[list[str]]] = {}
    for section in re.split(r"^## ", page, flags=re.MULTILINE):
        title = section.partition("\n")[0]
        if title.startswith("The way of"):
            lists = re.split(r"^In .*:$", section, flags=re.MULTILINE)[1:]
            found[title] = [re.findall(r"^\d+\. `([\w.]+)`", each, re.MULTILINE) for each in lists]
    return found
