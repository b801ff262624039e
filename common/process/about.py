"""What a process reports about itself over the bus: its version and its settings, without secrets. Pure.

Only settings that differ from their defaults are reported. A secret is reported as set; of a URL also scheme, host and
port, unless they could be part of a password with unencoded characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from watchout.common.settings import Settings, load, table
from watchout.common.settings.bus_servers import BusServer

#: The release of this code, as in pyproject.toml (`deploy/release.py` compares them). To ask the installed package for
#: it would load `importlib.metadata` and with it `email` into each process.
VERSION: Final = "0.2.0"
#: Reported in place of a secret.
SET: Final = "set"
#: Longest reported value, in characters.
MAX_TEXT: Final = 200
#: Settings that always differ between processes of one home: not reported.
_OWN: Final = frozenset(("WATCHOUT_PROCESS_NAME", "SETTINGS_FILES", "ALIVE_FILE"))
#: Settings that differ between processes of two machines, and are not compared then.
_OF_A_MACHINE: Final = frozenset(("WATCHOUT_HOME", "WATCHOUT_HOST", "PUBLIC_URL", "MESH_LISTEN", "ROUTER_ADDRESS",
                                  "ROUTER_PUBLIC_KEY", "BRIDGE_KEY_FILE"))  # fmt: skip
#: Names, or beginnings of names, of the settings that mlbridge uses, the router uses, and the gateway does not use.
_BRIDGE: Final = ("ML_", "LOG_", "ALERT_COOLDOWN_S", "MAX_MESSAGE_BYTES", "ROUTER_TIMEOUT_S", "DRAIN_S",
                  "WATCHOUT_HOME", "WATCHOUT_LOOP", "ROUTER_ADDRESS", "ROUTER_PUBLIC_KEY",
                  "BRIDGE_KEY_FILE", "WATCHOUT_BUS", "BUS_", "CLUSTER_")  # fmt: skip
_ROUTER: Final = ("RECENT_", "ALERT_", "ROUTER_LISTEN", "STREAM_RESERVED", "LOG_", "MAX_STREAMS", "MAX_MESSAGE_BYTES",
                  "DRAIN_S", "WATCHOUT_HOME", "WATCHOUT_LOOP", "WATCHOUT_BUS", "BUS_", "CLUSTER_")  # fmt: skip
_NOT_GATEWAY: Final = ("ML_", "ALERT_WEBHOOK_", "ALERT_COOLDOWN_S", "ROUTER_LISTEN", "ROUTER_ADDRESS",
                       "ROUTER_PUBLIC_KEY", "BRIDGE_KEY_FILE")  # fmt: skip


def reported_settings(settings: Settings) -> dict[str, str]:
    """Return the settings that differ from their defaults: text by name, secrets as `SET`."""
    defaults = load({})
    found = {}
    for attribute, spec, _ in table():
        value = getattr(settings, attribute)
        if value != getattr(defaults, attribute) and spec.env not in _OWN:
            found[spec.env] = _secret(value) if spec.secret else _text(value)[:MAX_TEXT]
    return found


def is_used_by(kind: str, env: str) -> bool:
    """Whether processes of this kind (``gateway``, ``router``, ``mlbridge``) use the setting."""
    if kind == "mlbridge":
        return env.startswith(_BRIDGE)
    return env.startswith(_ROUTER) if kind == "router" else not env.startswith(_NOT_GATEWAY)


def differences(kind: str, theirs: Mapping[str, str], ours: Mapping[str, str], *, far: bool = False) -> list[str]:
    """Return how the settings of two processes differ, a clause for each setting.

    Args:
        kind: kind of the first process; settings that it does not use are not compared.
        theirs: its settings, as `reported_settings` returns them.
        ours: settings of the second.
        far: whether they run on two machines.
    """
    found = []
    for env in sorted(theirs.keys() | ours.keys()):
        if theirs.get(env) == ours.get(env) or not is_used_by(kind, env) or (far and env in _OF_A_MACHINE):
            continue
        found.append(f"{env} is {_shown(theirs.get(env))} there and {_shown(ours.get(env))} here")
    return found


def _shown(text: str | None) -> str:
    return "not set" if text is None else text


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, tuple | list | frozenset | set):
        return ",".join(sorted(map(str, value)) if isinstance(value, frozenset | set) else map(_text, value))
    return str(value)


def _secret(value: object) -> str:
    """Return `SET`; for a URL also with scheme, host and port."""
    if isinstance(value, tuple) and value and all(isinstance(item, BusServer) for item in value):
        return f"{SET} ({', '.join(map(str, value))})"[:MAX_TEXT]
    if not isinstance(value, str) or "://" not in value:
        return SET
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return SET
    if not parts.hostname or value.count("@") != parts.netloc.count("@") or value.count("@") > 1:
        return SET
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{SET} ({parts.scheme}://{host}{f':{port}' if port else ''})"[:MAX_TEXT]
