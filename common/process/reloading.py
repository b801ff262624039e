"""Takes up changed settings in a running process: all that can be, or nothing when something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from watchout.common import log
from watchout.common.errors import SettingsError, StartError
from watchout.common.process.about import is_used_by
from watchout.common.process.service_manager import ServiceManager
from watchout.common.settings import Settings
from watchout.common.settings.changes import compare
from watchout.common.settings.source import SettingsSource

_log = log.get("common.process.reloading")


class Reloading:
    """The reload of one process; `common.service` makes one, and calls `reload` at SIGHUP.

    Args:
        kind: ``gateway``, ``router`` or ``mlbridge``.
        source: Where the settings come from.
        settings: Those of the process, whose values are replaced in place.
        manager: The service manager, which is told.
        prepare: Checks what new settings need, such as a certificate, and returns what takes it up; raises
            `StartError` when something is wrong.
    """

    def __init__(
        self,
        kind: str,
        source: SettingsSource,
        settings: Settings,
        manager: ServiceManager,
        prepare: Callable[[Settings], Callable[[], None]],
    ) -> None:
        self._kind = kind
        self._source = source
        self._settings = settings
        self._manager = manager
        self._prepare = prepare

    def reload(self) -> None:
        """Read the settings again, take up what changed, and say in one line what did, or what is wrong."""
        self._manager.reloading()
        log.set_level("info")  # whoever asked gets an answer, also with LOG_LEVEL=error
        try:
            self._take_up()
        except SettingsError as error:
            self._refuse(error.faults)
        except StartError as error:
            self._refuse((str(error),))
        finally:
            log.set_level(self._settings.log_level)
            self._manager.reloaded()

    def _refuse(self, faults: tuple[str, ...]) -> None:
        _log.error(f"{self._kind} keeps all its settings: the new ones are wrong", faults="; ".join(faults))

    def _take_up(self) -> None:
        new = replace(self._source.read(), process_name=self._settings.process_name)  # the name was claimed
        changes = compare(self._settings, new, lambda env: is_used_by(self._kind, env))
        take_up = self._prepare(new)
        self._settings.take_over(new, changes.attributes)
        take_up()
        said = {"changed": "; ".join(changes.reloaded) or "nothing"}
        if changes.fixed:
            said["needs_restart"] = ", ".join(changes.fixed)
        if not self._source.files:
            said["note"] = "SETTINGS_FILES is not set, and the environment of a process does not change"
        (_log.warning if changes.fixed else _log.info)(f"{self._kind} read its settings again", **said)
