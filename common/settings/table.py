"""The table of all settings: every group in one class, in the order of docs/settings.md. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Final

from watchout.common.settings.groups.alerts import AlertSettings
from watchout.common.settings.groups.cluster import ClusterSettings
from watchout.common.settings.groups.identity import IdentitySettings
from watchout.common.settings.groups.limits import LimitSettings
from watchout.common.settings.groups.ml_service import MlServiceSettings
from watchout.common.settings.groups.network import NetworkSettings
from watchout.common.settings.groups.process import ProcessSettings
from watchout.common.settings.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Settings(
    # Fields of the last base come first: dataclasses collect them in reverse order of inheritance.
    ProcessSettings,
    ClusterSettings,
    AlertSettings,
    MlServiceSettings,
    LimitSettings,
    IdentitySettings,
    NetworkSettings,
):
    """Every setting of every process, checked; made by `load` from the environment.

    The defaults are those of an empty environment. Secrets are left out of its `repr`. A value changes only by
    `take_over`, and only in a process that reloads: all parts of a process share one object.
    """

    def take_over(self, other: Settings, attributes: Iterable[str]) -> None:
        """Replace the values of these attributes by those of another object. They have to be reloadable."""
        for attribute in attributes:
            object.__setattr__(self, attribute, getattr(other, attribute))


def table() -> tuple[tuple[str, Spec, Any], ...]:
    """Return every setting as (attribute of `Settings`, spec, default), by group in the order of docs/settings.md."""
    return tuple((f.name, f.metadata["spec"], f.default) for f in fields(Settings))


#: Titles of the groups, in the order of docs/settings.md.
GROUPS: Final = tuple(dict.fromkeys(spec.group for _, spec, _ in table()))
