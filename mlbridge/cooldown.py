"""What an ML service says again and again is told once: a pause per stream and kind of alert. Pure; `now` in seconds.

The kind is `metadata.objectType` where the service gives one. Otherwise it is the message, read without its numbers,
so that "person 0.87" and "person 0.91" are of one kind. What comes within the pause is counted, and the next alert of
the kind carries the count in `metadata.suppressed`. An alert of a higher severity than the one that began the pause
does not wait, and begins a new one.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, get_args

from watchout.common.alerts.model import Alert, Severity

#: Kinds, over all streams, whose pause is remembered; past it the one told longest ago is forgotten.
MAX_KINDS: Final = 20_000
#: Ids that are remembered, so that an answer that comes twice is not counted as a second alert.
MAX_IDS: Final = 16_384
#: After this an id may stand for another alert, as it may at the router (`router.alerts.log.KNOWN_S`).
IDS_KNOWN_S: Final = 900.0
#: A message is read so far.
KIND_CHARACTERS: Final = 200

_RANK: Final = {name: rank for rank, name in enumerate(get_args(Severity))}
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")


def kind_of(alert: Alert) -> str:
    """What an alert is about, as the cooldown sees it."""
    named = (alert.metadata or {}).get("objectType")
    if isinstance(named, str) and named:
        return f"objectType {named[:KIND_CHARACTERS]}"
    return "message " + _NUMBER.sub("0", alert.message)[:KIND_CHARACTERS]


@dataclass(slots=True)
class _Pause:
    until: float
    rank: int
    suppressed: int = 0


class Cooldown:
    """The pauses of one bridge. With `pause_s` 0 every alert passes, but none twice."""

    def __init__(self, pause_s: float, *, max_kinds: int = MAX_KINDS, max_ids: int = MAX_IDS) -> None:
        self._pause_s = pause_s
        self._max_kinds = max_kinds
        self._max_ids = max_ids
        self._pauses: OrderedDict[tuple[str, str], _Pause] = OrderedDict()
        self._ids: OrderedDict[tuple[str, str], float] = OrderedDict()
        #: Alerts held back by a pause, and alerts whose id had come before.
        self.suppressed = 0
        self.repeated = 0

    def __len__(self) -> int:
        return len(self._pauses)

    def take(self, alert: Alert, now: float) -> Alert | None:
        """The alert as it is to be told, with the count of those before it that were not; None: it is not told."""
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
            return None
        untold = 0 if pause is None else pause.suppressed
        self._pauses[key] = _Pause(now + self._pause_s, rank)
        self._pauses.move_to_end(key)
        if len(self._pauses) > self._max_kinds:
            self._pauses.popitem(last=False)
        if not untold:
            return alert
        return alert.changed(metadata={**(alert.metadata or {}), "suppressed": untold})

    def _first(self, alert: Alert, now: float) -> bool:
        key = alert.stream_id, alert.id
        if now - self._ids.get(key, float("-inf")) <= IDS_KNOWN_S:
            return False
        self._ids[key] = now
        self._ids.move_to_end(key)
        if len(self._ids) > self._max_ids:
            self._ids.popitem(last=False)
        return True
