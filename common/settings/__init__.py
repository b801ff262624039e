"""Settings: one table of all of them, their checks, and the page of the documentation that is made of it."""

from __future__ import annotations

from watchout.common.settings.specs import (
    SOCKET_NAME_BYTES,
    SOCKET_PATH_BYTES,
    Settings,
    Spec,
    is_service_link,
    load,
    render_markdown,
    table,
)

__all__ = [
    "SOCKET_NAME_BYTES",
    "SOCKET_PATH_BYTES",
    "Settings",
    "Spec",
    "is_service_link",
    "load",
    "render_markdown",
    "table",
]
