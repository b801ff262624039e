"""Holds back repeated alerts for a pause after each alert of a stream and kind. Pure; times in seconds.

The kind is `metadata.objectType` if the service sets it. Otherwise it is the message without its numbers, so that
"person 0.87" and "person 0.91" are of one kind. Alerts within the pause are counted, and the next alert of the kind
carries the count in `metadata.suppressed`. An alert of a higher severity than the one that began the pause is not held
back, and begins a new pause.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, get_args

from watchout.common.alerts.model import Alert, Severity

#: Most pauses that are remembered, over all streams; past it the oldest is forgotten.
MAX_KINDS: Final = 20_000
#: Most ids that are remembered, so that a result that is received twice does not count as a second alert.
MAX_IDS: Final = 16_384
#: Time after which an id is forgotten and may belong to another alert, in seconds; as at the router
#: (`router.alerts.log.KNOWN_S`).
IDS_KNOWN_S: Final = 900.0
#: Characters of a message that make its kind.
KIND_CHARACTERS: Final = 200

_RANK: Final = {name: rank for rank, name in enumerate(get_args(Severity))}
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")


def kind_of(alert: Alert) -> str:
    """Return the kind of an alert: alerts of one stream and kind share a pause."""
    named = (alert.metadata or {}).get("objectType")
    if isinstance(named, str) and named:
        return f"objectType {named[:KIND_CHARACTERS]}"
    return "message " + _NUMBER.sub("0", alert.message)[:KIND_CHARACTERS]


@dataclass(slots=True)
class _Pause:
    """The time after an alert in which `Cooldown` holds back further alerts of the same stream and kind.

    `until` is its end in seconds, `rank` the severity that began it, `suppressed` the number of alerts held back,
    `cause` the id of the alert that began it.
    """

    until: float
    rank: int
    suppressed: int = 0
    cause: str = ""


class Cooldown:
    """Holds back repeated alerts: after an alert, those of the same stream and kind for `pause_s`, unless more severe.

    Used by `AlertSender`, and by ``watchout-ctl ml`` for dry runs.

    Args:
        pause_s: length of a pause (``ALERT_COOLDOWN_S``), in seconds; 0: every alert passes, but none twice.
        max_kinds: most pauses that are remembered.
        max_ids: most ids that are remembered.

    Attributes:
        suppressed: alerts that were held back by a pause.
        repeated: alerts with an id that was received before.
        held_by: the alert that began the pause which held the last alert back; empty: none did.
    """

    def __init__(self, pause_s: float, *, max_kinds: int = MAX_KINDS, max_ids: int = MAX_IDS) -> None:
        self._pause_s = pause_s
        self._max_kinds = max_kinds
        self._max_ids = max_ids
        self._pauses: OrderedDict[tuple[str, str], _Pause] = OrderedDict()
        self._ids: OrderedDict[tuple[str, str], float] = OrderedDict()
        self.suppressed = 0
        self.repeated = 0
        self.held_by = ""

    def __len__(self) -> int:
        return len(self._pauses)

    @property
    def known_ids(self) -> int:
        """The number of ids that are remembered."""
        return len(self._ids)

    def take(self, alert: Alert, now: float) -> Alert | None:
        """Return the alert to report, with the number of alerts held back before it; None: it is held back."""
        self.held_by = ""
        if not self._first(alert, now):
            self.repeated += 1
            return None
        if not self._pause_s:
            return alert
        key = alert.stream_id, kind_of(alert)
        rank = _RANK[alert.severity]
        pause = self._pauses.get(key)
        if pause is not None and now < pause.until and rank <= pause.rank:
            pause.suppressed += 1
            self.suppressed += 1
            self.held_by = pause.cause
            return None
        held_back = 0 if pause is None else pause.suppressed
        self._pauses[key] = _Pause(now + self._pause_s, rank, cause=alert.id)
        self._pauses.move_to_end(key)
        if len(self._pauses) > self._max_kinds:
            self._pauses.popitem(last=False)
        if not held_back:
            return alert
        return alert.changed(metadata={**(alert.metadata or {}), "suppressed": held_back})

    def _first(self, alert: Alert, now: float) -> bool:
        key = alert.stream_id, alert.id
        if now - self._ids.get(key, float("-inf")) <= IDS_KNOWN_S:
            return False
        self._ids[key] = now
        self._ids.move_to_end(key)
        while len(self._ids) > self._max_ids or now - next(iter(self._ids.values())) > IDS_KNOWN_S:
            self._ids.popitem(last=False)
        return True
