"""The settings of all processes: declared by group, parsed, checked against each other, and documented."""

from __future__ import annotations

from watchout.common.settings.docs import render_markdown
from watchout.common.settings.loading import is_service_link, load
from watchout.common.settings.parsers import SOCKET_PATH_BYTES
from watchout.common.settings.spec import Spec
from watchout.common.settings.table import GROUPS, Settings, table

__all__ = [
    "GROUPS",
    "SOCKET_PATH_BYTES",
    "Settings",
    "Spec",
    "is_service_link",
    "load",
    "render_markdown",
    "table",
]
