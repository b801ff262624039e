"""Settings of each process: its name, logs, event loop and shutdown. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from watchout.common.settings import parsers
from watchout.common.settings.spec import Reload, SettingsGroup

_GROUP: Final = SettingsGroup("Logs and process")


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class ProcessSettings:
    """The settings of the section "Logs and process": what every process has by itself. See `Settings`."""

    process_name: str = _GROUP.setting(
        "WATCHOUT_PROCESS_NAME", parsers.process_name, "", expects="1–64 characters",
        help="Name of this process in metrics (`process=`), `stats` and logs. Not set: its name under honcho "
        "(`gateway.1`), otherwise its kind (`gateway`). If a running process of the same `WATCHOUT_HOME` has the name, "
        "the lowest free number is appended (`gateway-2`).",
    )  # fmt: skip
    log_level: str = _GROUP.setting(
        "LOG_LEVEL", parsers.one_of("debug", "info", "warning", "error"), "info",
        expects="debug, info, warning, error", reload=Reload.YES, help="Lowest level that is logged.",
    )  # fmt: skip
    log_format: str = _GROUP.setting(
        "LOG_FORMAT", parsers.one_of("auto", "text", "json"), "auto", expects="auto, text, json",
        help="Format of log lines. `auto`: text on a terminal and under honcho, otherwise JSON.",
    )  # fmt: skip
    settings_files: tuple[str, ...] = _GROUP.setting(
        "SETTINGS_FILES", parsers.names, (), expects="files",
        help="Files with `NAME=VALUE` in each line, which are read at the start and again at SIGHUP; they take "
        "precedence over the environment, and later ones over earlier ones. A `-` before a name: the file may be "
        "missing. To be set in the environment; under honcho `SETTINGS_FILES=.env` in `.env`.",
    )  # fmt: skip
    access_log: bool = _GROUP.setting(
        "ACCESS_LOG", parsers.flag, True, expects="true, false",
        help="One log line at the end of each WebSocket and each refused handshake: who, from where, how long, what "
        "came and went, and how it ended.",
    )  # fmt: skip
    access_log_rate: float = _GROUP.setting(
        "ACCESS_LOG_RATE", parsers.number(0.1, 100_000), 50.0, expects="lines per second",
        help="Most access log lines per second of one gateway, over some seconds; the next line says how many were "
        "left out. Refused handshakes get a fifth of it.",
    )  # fmt: skip
    why_minutes: float = _GROUP.setting(
        "WHY_MINUTES", parsers.number(0, 1440), 60.0, expects="0–1440 minutes",
        help="How long each process remembers why connections ended and frames were not sent, for `watchout-ctl why`. "
        "0: nothing is remembered.",
    )  # fmt: skip
    why_bytes: int = _GROUP.setting(
        "WHY_BYTES", parsers.whole(65536, 1 << 30), 16 << 20, expects="bytes",
        help="Memory of each process for it, and of each slot's router; beyond it the oldest of what there is most of "
        "gives way.",
    )  # fmt: skip
    alive_file: Path | None = _GROUP.setting(
        "ALIVE_FILE", parsers.new_file, None, expects="file",
        help="File whose time the event loop renews every 5 s, another one for each process. Kubernetes and Docker, "
        "which have no watchdog like systemd's, look at it to end a process that hangs. Its folder has to exist.",
    )  # fmt: skip
    loop: str = _GROUP.setting(
        "WATCHOUT_LOOP", parsers.one_of("uvloop", "asyncio"), "uvloop", expects="uvloop, asyncio",
        help="Event loop. `uvloop` is faster; use `asyncio` to debug, or where uvloop is not available.",
    )  # fmt: skip
    latency_objective_ms: float = _GROUP.setting(
        "LATENCY_OBJECTIVE_MS", parsers.number(1, 600_000), 1_000.0, expects="1–600000 ms",
        help="Milliseconds within which 99 of 100 frames are to reach a viewer's socket, counted from their capture. "
        "`watchout-ctl latency` shows how much of the error budget (the hundredth that may be late) is used.",
    )  # fmt: skip
    alert_latency_objective_ms: float | None = _GROUP.setting(
        "ALERT_LATENCY_OBJECTIVE_MS", parsers.number(1, 600_000), None, expects="1–600000 ms",
        help="The same for alerts of the ML service, from the capture of the frame to the socket that gets the alert. "
        "Not set: as `LATENCY_OBJECTIVE_MS`.",
    )  # fmt: skip
    drain_s: float = _GROUP.setting(
        "DRAIN_S", parsers.number(0, 3.5), 3.0, expects="0–3.5 s",
        reload=Reload.YES,
        help="Seconds that a process waits after SIGTERM for its clients to disconnect. Below 5 s, after which honcho "
        "kills it.",
    )  # fmt: skip
    drain_spread_s: float = _GROUP.setting(
        "DRAIN_SPREAD_S", parsers.number(0, 3600), 5.0, expects="0–3600 s",
        reload=Reload.YES,
        help="Seconds over which a gateway that ends asks its clients, a few at a time, to reconnect, if another "
        "gateway is there for them; `DRAIN_S` follows. With no other gateway, or when honcho ends them all, everybody "
        "is asked at once. systemd is told to wait; of Docker (`--stop-timeout`) and Kubernetes "
        "(`terminationGracePeriodSeconds`) ask for 5 s more than both together.",
    )  # fmt: skip
