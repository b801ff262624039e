"""Log lines: one event a line, key=value on a terminal and under honcho, JSON elsewhere.

Control characters in values are escaped, long values are cut. No token, cookie or picture is ever given to a logger.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

MAX_VALUE: Final = 500


def setup(*, level: str, format: str, process: str) -> None:
    """Configure logging for this process; `process` stands in each line."""
    plain = format == "text" or (format == "auto" and (sys.stdout.isatty() or "HONCHO_PROCESS_NAME" in os.environ))
    renderer: Any = _render_text if plain else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _cut,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    # Libraries speak through the standard logging; only what is wrong is of interest, and never a payload.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", stream=sys.stdout)
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    logging.getLogger("aiohttp.server").setLevel(logging.ERROR)
    _process[0] = process


_process: Final = ["watchout"]


def get(room: str) -> structlog.typing.FilteringBoundLogger:
    """The logger of one room, such as ``gateway.link``."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(room=room)
    return logger


def _cut(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str) and len(value) > MAX_VALUE and key != "exception":
            event[key] = value[:MAX_VALUE] + "…"
    event["process"] = _process[0]
    return event


def _render_text(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    at = str(event.pop("timestamp", ""))[11:23]
    clock = "" if "HONCHO_PROCESS_NAME" in os.environ else at + " "  # honcho puts its own in front
    head = f"{clock}{event.pop('level', 'info'):<7} {event.pop('event', '')}"
    event.pop("process", None)
    exception = event.pop("exception", None)
    pairs = "".join(f" {key}={_plain(value)}" for key, value in event.items() if value is not None)
    return head + pairs + (f"\n{exception}" if exception else "")


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if text.isascii() and text.isprintable() and " " not in text and text else repr(text)
