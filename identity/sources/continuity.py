"""Decides whether a session store is still the same one, so that sessions missing from it have really ended. Pure.

All sessions seem to vanish at once when the tables are replaced, restored or emptied, when a pooler or the search path
leads to other tables, or when the server's clock jumps. A deleted row changes none of that, so in an unchanged store
the end of a session is accepted at once, for one user or for all.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from watchout.identity.caller import Identity

#: Live sessions that are remembered to recognise the store, and how many of them are probed.
REMEMBERED: Final = 256
LOOKED_FOR: Final = 50
#: Accepted marks that are kept: several hosts that answer in turn have one each.
MARKS: Final = 16
#: The same tables without any live session count as emptied after this many seconds: a reload takes a moment.
EMPTIED_S: Final = 10.0
#: Other tables, with live sessions but none of the known ones, are accepted after this many seconds; so is a standby.
OTHER_S: Final = 600.0
#: A jump of the server's clock by more than this, in seconds and away from this machine's, is not believed.
CLOCK_JUMP_S: Final = 30.0
#: Pause between two probes of a store that is not accepted, in seconds.
LOOK_AGAIN_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """Identifies the tables that answered a look-up: the server's cluster id, the database's oid and the tables' oids.

    Made by the stores, compared by `Continuity`. A session that is missing in another location has not ended.
    """

    cluster: str
    database: str
    tables: str


@dataclass(frozen=True, slots=True)
class StoreState:
    """The state of a session store at one look-up; made by the stores, compared by `Continuity`.

    Two equal states show the same rows, except for changes to the rows themselves.

    Attributes:
        location: Which tables answered.
        mark: Text that changes with the files of the tables, with policies on their rows, and with the server's start.
        standby: Whether the server is a standby, which may lag behind.
    """

    location: StoreLocation
    mark: str
    standby: bool = False


#: State of a store that does not report one.
UNKNOWN_STATE: Final = StoreState(StoreLocation("", "", ""), "")


@dataclass(frozen=True, slots=True)
class Evidence:
    """Result of a probe of the session store, made by the stores and judged by `Continuity`.

    `any_live`: any session is live. `looked_for` is the number of known sessions that were looked up, `seen` the number
    of those that are live.
    """

    any_live: bool
    looked_for: int
    seen: int


class Continuity:
    """Tracks the state of one store and decides whether its answers are accepted. Used by `DatabaseStore`.

    `now` is monotonic, in seconds. Reasons are texts for logs and `/health`.
    """

    def __init__(self) -> None:
        self._state: StoreState | None = None
        self._marks: OrderedDict[tuple[StoreLocation, str], None] = OrderedDict()
        self._known: OrderedDict[str, float] = OrderedDict()
        self._candidate: StoreState | None = None
        self._since = 0.0
        self._looked_at = -math.inf
        self._reason: str | None = None
        self._clock: tuple[float, float, float] | None = None

    # ── known sessions ───────────────────────────────────────────────────────────────────────────────────────────

    def remember(self, found: Iterable[Identity]) -> None:
        """Record sessions that were found live."""
        for identity in found:
            if identity.session_id is not None:
                self._known[identity.session_id] = identity.expires_at
                self._known.move_to_end(identity.session_id)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def forget_ended(self, session_ids: Iterable[str], live: Mapping[str, Identity]) -> None:
        """Forget the sessions that have ended, once their end was accepted.

        Args:
            session_ids: The sessions that were looked up.
            live: Those of them that are live, by session id.
        """
        for session_id in session_ids:
            if session_id not in live:
                self._known.pop(session_id, None)

    def sessions_to_probe(self) -> list[str]:
        """Return the ids of up to `LOOKED_FOR` unexpired sessions, found last, by which the store can be recognised."""
        now = time.time()
        for session_id in [each for each, ends in self._known.items() if ends <= now]:
            del self._known[session_id]
        return list(self._known)[-LOOKED_FOR:]

    # ── the state of the store ───────────────────────────────────────────────────────────────────────────────────

    def accepts(self, state: StoreState) -> bool:
        """Return whether the state is accepted without a probe: it is known, the first one, or no session is known."""
        if (state.location, state.mark) in self._marks:
            self._marks.move_to_end((state.location, state.mark))
            return True
        if self._state is None or not self._known:
            self._accept(state)
            return True
        return False

    def recent_doubt(self, state: StoreState, now: float) -> str | None:
        """Return why this state was refused less than `LOOK_AGAIN_S` ago; None: probe the store."""
        fresh = state == self._candidate and now < self._looked_at + LOOK_AGAIN_S
        return self._reason if fresh else None

    def judge(self, state: StoreState, evidence: Evidence, now: float) -> str | None:
        """Decide on a state by a probe.

        Args:
            state: The state in which the store was probed.
            evidence: What the probe found.
            now: Monotonic seconds.

        Returns:
            Why the state is not accepted; None when it is accepted from now on.
        """
        if state != self._candidate:
            self._candidate, self._since = state, now
        self._looked_at, waited_s = now, now - self._since
        self._reason = self._doubt(state, evidence, waited_s)
        if self._reason is None:
            self._accept(state)
        return self._reason

    def _doubt(self, state: StoreState, evidence: Evidence, waited_s: float) -> str | None:
        assert self._state is not None, "the first state is always accepted"
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

    # ── the server's clock ───────────────────────────────────────────────────────────────────────────────────────

    def check_clock(self, server_s: float, own_s: float, now: float) -> str | None:
        """Compare the server's clock with this machine's.

        When both clocks agreed before and then the server's alone jumps ahead, it is wrong.

        Args:
            server_s: The server's clock, in seconds since the Unix epoch.
            own_s: This machine's clock, in seconds since the Unix epoch.
            now: Monotonic seconds.

        Returns:
            Why missing sessions must not count as expired; None when the clock can be trusted.
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
