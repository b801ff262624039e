"""The registry of checks: every module in `ctl.doctor.checks`, and the sections of the report."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Final

from watchout.ctl.doctor import checks
from watchout.ctl.doctor.check import Check

#: Sections of the report, in the order in which they are shown.
SECTIONS: Final = (
    "settings",
    "home",
    "processes",
    "store",
    "schema",
    "clock",
    "keys",
    "tls",
    "ports",
    "bus",
    "mesh",
    "ml",
)


def all_checks() -> tuple[Check, ...]:
    """Return the `CHECK` of each module in `ctl.doctor.checks`, by the modules' names."""
    names = sorted(module.name for module in pkgutil.iter_modules(checks.__path__))
    found = []
    for name in names:
        check = importlib.import_module(f"{checks.__name__}.{name}").CHECK
        assert isinstance(check, Check), f"{name}.CHECK is no Check"
        assert check.section in SECTIONS, f"{name} has the section {check.section}, expected one of {SECTIONS}"
        found.append(check)
    return tuple(found)
