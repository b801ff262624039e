"""Name, logs, event loop and shutdown of each process. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from watchout.common.settings import parsers
from watchout.common.settings.spec import SettingsGroup

_GROUP: Final = SettingsGroup("Logs and process")


@dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    """Logs and process: one field a setting. `Settings` inherits them."""

    process_name: str = _GROUP.setting(
        "WATCHOUT_PROCESS_NAME", parsers.process_name, "", expects="1–64 characters",
        help="What this process is called in figures (`process=`), `stats` and logs. Not set: its name under honcho "
        "(`gateway.1`), else what it is (`gateway`). Of several that would be called the same in one `WATCHOUT_HOME`, "
        "each further one gets a number (`gateway-2`), the lowest that is free.",
    )  # fmt: skip
    log_level: str = _GROUP.setting(
        "LOG_LEVEL", parsers.one_of("debug", "info", "warning", "error"), "info",
        expects="debug, info, warning, error", help="Least level that is logged.",
    )  # fmt: skip
    log_format: str = _GROUP.setting(
        "LOG_FORMAT", parsers.one_of("auto", "text", "json"), "auto", expects="auto, text, json",
        help="`auto`: text on a terminal and under honcho, JSON lines elsewhere.",
    )  # fmt: skip
    loop: str = _GROUP.setting(
        "WATCHOUT_LOOP", parsers.one_of("uvloop", "asyncio"), "uvloop", expects="uvloop, asyncio",
        help="The event loop.",
    )  # fmt: skip
    drain_s: float = _GROUP.setting(
        "DRAIN_S", parsers.number(0, 3.5), 3.0, expects="0–3.5 s",
        help="How long a process that was told to end waits for its clients to close. honcho kills after 5 s.",
    )  # fmt: skip
