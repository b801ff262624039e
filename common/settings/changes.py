"""What differs between the settings of a running process and new ones, and what of it can be taken up. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from watchout.common.settings.spec import Reload
from watchout.common.settings.table import Settings, table

#: Longest value that is shown, in characters.
MAX_SHOWN: Final = 80


@dataclass(frozen=True, slots=True)
class Changes:
    """The differences that `compare` found.

    Attributes:
        attributes: what can be taken up, by attribute of `Settings`.
        reloaded: the same in words, such as ``MESSAGE_RATE from 2000 to 50``; of secrets the name alone.
        fixed: names of settings that need a restart.
    """

    attributes: tuple[str, ...]
    reloaded: tuple[str, ...]
    fixed: tuple[str, ...]


def compare(now: Settings, new: Settings, is_used: Callable[[str], bool]) -> Changes:
    """Return what differs, of the settings that the process uses.

    Args:
        now: the settings of the process.
        new: those that it was asked to take up.
        is_used: whether the process uses the setting of this name.
    """
    attributes: list[str] = []
    reloaded: list[str] = []
    fixed: list[str] = []
    for attribute, spec, _ in table():
        before, after = getattr(now, attribute), getattr(new, attribute)
        if before == after or not is_used(spec.env):
            continue
        unset = before is None or after is None
        if spec.reload is Reload.NO or (spec.reload is Reload.REPLACED and unset):
            fixed.append(spec.env)
            continue
        attributes.append(attribute)
        reloaded.append(spec.env if spec.secret else f"{spec.env} from {_shown(before)} to {_shown(after)}")
    return Changes(tuple(attributes), tuple(reloaded), tuple(fixed))


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.10g}"
    return (", ".join(map(str, value)) if isinstance(value, tuple) else str(value))[:MAX_SHOWN]
