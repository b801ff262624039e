"""What is declared of one setting, how a group of settings declares it, and the exception of its parser. Pure."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class InvalidValue(Exception):
    """A setting's value that its parser refuses. `load` catches it and reports it with the setting's name.

    Args:
        expected: what would have been accepted; the text of the exception.
        received: what may be shown of the value, None: the value itself, or nothing of a secret.
    """

    def __init__(self, expected: str, received: str | None = None) -> None:
        super().__init__(expected)
        self.received = received


class Reload(enum.Enum):
    """Whether a running process can take up another value of a setting, when it is asked to read them again."""

    #: After a restart only.
    NO = "no"
    YES = "yes"
    #: Another value, but neither the first one nor none.
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Spec:
    """The declaration of one setting, except for its default.

    Attributes:
        env: name of the environment variable.
        parse: returns the checked value of the variable's text; raises `InvalidValue`.
        group: title of its section in docs/settings.md.
        expects: the accepted values in a few words, with the unit.
        help: what the setting does; one cell of docs/settings.md, in Markdown.
        secret: whether the value is left out of errors, logs and reports.
        former_env: name of the variable in earlier releases, None for none. It is read where `env` is not set, with a
            warning at the start, and removed in the next release.
        reload: whether a running process takes it up at SIGHUP. Such a setting is read where it is used, or taken up
            by the process's `prepare_reload`; `tests/unit/common/test_reloading.py` finds one that is copied.
    """

    env: str
    parse: Callable[[str], Any]
    group: str
    expects: str
    help: str
    secret: bool = False
    former_env: str | None = None
    reload: Reload = Reload.NO


@dataclass(frozen=True, slots=True)
class SettingsGroup:
    """One section of the settings: each file in `common/settings/groups/` makes one, and declares its settings by it.

    The class with these declarations is a dataclass without methods: only `Settings`, which has them all, is made.

    `title` is the heading of the section in docs/settings.md.
    """

    title: str

    def setting(
        self,
        env: str,
        parse: Callable[[str], Any],
        default: Any,
        *,
        expects: str,
        help: str,
        secret: bool = False,
        former_env: str | None = None,
        reload: Reload = Reload.NO,
    ) -> Any:
        """Return a dataclass field with this default that carries the setting's `Spec`."""
        spec = Spec(env, parse, self.title, expects, help, secret, former_env, reload)
        return field(default=default, repr=not secret, metadata={"spec": spec})
