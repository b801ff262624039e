"""Reads the settings from an environment, and reports every wrong value at once, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from watchout.common.errors import SettingsError
from watchout.common.settings.cross_checks import faults_between
from watchout.common.settings.secret_files import with_files
from watchout.common.settings.spec import InvalidValue
from watchout.common.settings.table import Settings, table

#: Value that Kubernetes gives to ``X_PORT`` for a Service named ``x``.
_SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://\S+:\d{1,5}\Z")


def is_service_link(env: str, raw: str) -> bool:
    """Whether Kubernetes made this variable for a Service: its name may be that of a setting by coincidence."""
    return env.endswith("_PORT") and _SERVICE_LINK.match(raw) is not None


def load(environ: Mapping[str, str]) -> Settings:
    """Parse and check all settings, and read the files of those that are secret (`secret_files`).

    Args:
        environ: variables by name. An empty value counts as not set, and so does a `is_service_link`. ``PORT``
            replaces a missing ``WATCHOUT_PORT``, except under honcho, which sets another ``PORT`` for each process.

    Raises:
        SettingsError: values are wrong; it lists all of them. The process reports them and exits with 2.
    """
    values: dict[str, Any] = {}
    environ, faults = with_files(environ)
    under_honcho = "HONCHO_PROCESS_NAME" in environ
    for name, spec, default in table():
        env, raw = spec.env, environ.get(spec.env, "").strip()
        if is_service_link(env, raw):
            raw = ""
        if not raw and spec.former_env is not None:
            env, raw = spec.former_env, environ.get(spec.former_env, "").strip()
        if name == "port" and not raw and not under_honcho:
            env, raw = "PORT", environ.get("PORT", "").strip()
        if name == "home" and not raw:
            raw = str(default)
        if not raw:
            continue
        try:
            values[name] = spec.parse(raw)
        except InvalidValue as exc:
            received = exc.received or ("a value that is not shown" if spec.secret else repr(raw[:80]))
            faults.append(f"{env} is {received}, expected {exc}")
    if faults:
        raise SettingsError(faults)
    settings = Settings(**values)
    if faults := faults_between(settings):
        raise SettingsError(faults)
    return settings
