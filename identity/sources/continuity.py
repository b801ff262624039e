"""Whether a session store is still the one that it was: what is missing in another one has not ended. Pure.

Sessions seem to vanish all at once when the tables are replaced, restored or emptied, when a pooler or the search path
leads to others, or when the server's clock jumps. A row that was deleted leaves all of that as it was, so the end of a
session in an unchanged store is believed at once, whether it is one user's or everybody's.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from watchout.identity.caller import Identity

#: Sessions that are remembered to recognise the store by, and how many of them are looked for.
REMEMBERED: Final = 256
LOOKED_FOR: Final = 50
#: Marks that were accepted: hosts that answer in turn each have one.
MARKS: Final = 16
#: The same tables without any live session were emptied if that is still so after this: a reload takes a moment.
EMPTIED_S: Final = 10.0
#: Other tables, in which live sessions are but none of those that were here, are accepted after this; so is a standby.
OTHER_S: Final = 600.0
#: A server's clock that moves by more, away from this machine's, makes sessions expire that have not.
CLOCK_JUMP_S: Final = 30.0
#: What was found out about a store that is not accepted is not asked for more often.
LOOK_AGAIN_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """Which cluster, database and tables answer; in another one nothing that is missing has ended."""

    cluster: str
    database: str
    tables: str


@dataclass(frozen=True, slots=True)
class StoreState:
    """What answers: `mark` changes with the files of the tables, with who may see their rows, and with the server.

    `standby`: the server follows another one.
    """

    location: StoreLocation
    mark: str
    standby: bool = False


#: Of a store that does not say.
UNKNOWN_STATE: Final = StoreState(StoreLocation("", "", ""), "")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a store shows: whether any session in it is live, and how many of those looked for are."""

    any_live: bool
    looked_for: int
    seen: int


class Continuity:
    """What is known of one store. `now` is monotonic, in s."""

    def __init__(self) -> None:
        self._state: StoreState | None = None
        self._marks: OrderedDict[tuple[StoreLocation, str], None] = OrderedDict()
        self._known: OrderedDict[str, float] = OrderedDict()
        self._candidate: StoreState | None = None
        self._since = 0.0
        self._looked_at = -math.inf
        self._reason: str | None = None
        self._clock: tuple[float, float, float] | None = None

    # ── who was here ─────────────────────────────────────────────────────────────────────────────────────────────

    def remember(self, found: Iterable[Identity]) -> None:
        """These callers were found."""
        for identity in found:
            if identity.session_id is not None:
                self._known[identity.session_id] = identity.expires_at
                self._known.move_to_end(identity.session_id)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def forget_ended(self, session_ids: Iterable[str], live: Mapping[str, Identity]) -> None:
        """Of these sessions that were asked for only those are live, which was believed."""
        for session_id in session_ids:
            if session_id not in live:
                self._known.pop(session_id, None)

    def sessions_to_probe(self) -> list[str]:
        """Sessions by which the store can be recognised: those found last, as far as they have not expired."""
        now = time.time()
        for session_id in [each for each, ends in self._known.items() if ends <= now]:
            del self._known[session_id]
        return list(self._known)[-LOOKED_FOR:]

    # ── is it the same store? ────────────────────────────────────────────────────────────────────────────────────

    def accepts(self, state: StoreState) -> bool:
        """Whether this state needs no evidence. The first one, and any while nobody is here, is accepted."""
        if (state.location, state.mark) in self._marks:
            self._marks.move_to_end((state.location, state.mark))
            return True
        if self._state is None or not self._known:
            self._accept(state)
            return True
        return False

    def recent_doubt(self, state: StoreState, now: float) -> str | None:
        """Why this state was not accepted a moment ago; None: look for evidence (again)."""
        fresh = state == self._candidate and now < self._looked_at + LOOK_AGAIN_S
        return self._reason if fresh else None

    def judge(self, state: StoreState, evidence: Evidence, now: float) -> str | None:
        """Why this state is not accepted; None when it is, and its answers are believed from now on."""
        if state != self._candidate:
            self._candidate, self._since = state, now
        self._looked_at, waited_s = now, now - self._since
        self._reason = self._doubt(state, evidence, waited_s)
        if self._reason is None:
            self._accept(state)
        return self._reason

    def _doubt(self, state: StoreState, evidence: Evidence, waited_s: float) -> str | None:
        assert self._state is not None, "the first state is accepted as it is"
        if not evidence.looked_for:
            return None
        if state.location != self._state.location:
            if evidence.seen or (evidence.any_live and waited_s >= OTHER_S):
                return None
            what = _differs(self._state.location, state.location)
            return (
                f"another {what} answers than before, and has none of the {evidence.looked_for} sessions that were "
                "live here: a pooler, a search_path or a restore may lead to the wrong one. If it is meant to be so, "
                "restart the gateway"
            )
        if state.standby and not self._state.standby and evidence.seen < evidence.looked_for and waited_s < OTHER_S:
            return (
                f"a standby answers that has {evidence.seen} of {evidence.looked_for} sessions that were live here: it "
                "is behind. Set DATABASE_URL to the primary"
            )
        if evidence.seen or evidence.any_live or waited_s >= EMPTIED_S:
            return None
        return f"the session table was emptied a moment ago: believed when it is still so after {EMPTIED_S:g} s"

    def _accept(self, state: StoreState) -> None:
        if self._state is not None and state.location != self._state.location:
            self._marks.clear()
        self._state, self._candidate, self._reason = state, None, None
        self._marks[(state.location, state.mark)] = None
        while len(self._marks) > MARKS:
            self._marks.popitem(last=False)

    # ── is its clock the same? ───────────────────────────────────────────────────────────────────────────────────

    def check_clock(self, server_s: float, own_s: float, now: float) -> str | None:
        """Why nothing that is missing may be taken for expired; `server_s` and `own_s` are seconds since the epoch.

        Two clocks that agreed are two witnesses: a server whose clock then jumps ahead alone is not believed.
        """
        if self._clock is not None:
            before_s, own_before_s, at = self._clock
            jumped_s = (server_s - before_s) - (now - at)
            agreed = abs(before_s - own_before_s) <= CLOCK_JUMP_S
            if agreed and jumped_s > CLOCK_JUMP_S and server_s - own_s > CLOCK_JUMP_S:
                return (
                    f"the database server's clock has jumped ahead by {jumped_s:.0f} s: sessions seem to have expired "
                    "that have not. Set its clock (timedatectl, chronyc tracking)"
                )
        self._clock = (server_s, own_s, now)
        return None


def _differs(before: StoreLocation, now: StoreLocation) -> str:
    if before.cluster != now.cluster:
        return "database server"
    return "database" if before.database != now.database else "table"
