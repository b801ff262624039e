"""The systems that are rehearsed, and all that is broken in them."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

from tests.rules import alerts, cluster, limits, ml, processes
from tests.rules.breakage import Breakage

#: Each has `scene`, which starts the system, and `STEPS`.
SCENES: Final[dict[str, ModuleType]] = {
    "limits": limits, "ml": ml, "alerts": alerts, "processes": processes, "cluster": cluster,
}  # fmt: skip


def breakages() -> list[Breakage[Any]]:
    """All of them, in their order."""
    return [breakage for module in SCENES.values() for step in module.STEPS for breakage in step]
