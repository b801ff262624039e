"""What a caller may do with a stream: one small policy, asked at register, at subscribe, at each HTTP path, and again
when a caller's session or a stream's owner changes. Pure.

A policy answers one question: as what does this caller stand to this stream? Its answer is the roles that count, or
None for a stranger. A further policy is a further function in `POLICIES`, with what it needs in `Identity` or
`Owner`. The router is not asked: rights come from the session store, which only the gateway knows.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from watchout.common.bus.messages import AlertScope
from watchout.common.settings import Settings
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.model import Owner
from watchout.identity import Identity

#: Stands for every role that `ROLE_RIGHTS` does not name.
ANY_ROLE: Final = "*"

V = TypeVar("V")


class Right(enum.StrEnum):
    """What somebody may do. Who may `VIEW` gets the alerts too."""

    PUBLISH = "publish"
    VIEW = "view"
    ALERTS = "alerts"


Policy = Callable[[Identity, Owner], frozenset[str] | None]


def owner_only(caller: Identity, owner: Owner) -> frozenset[str] | None:
    """Only the user whose camera it is."""
    return caller.roles if caller.user_id == owner.user_id else None


def organization(caller: Identity, owner: Owner) -> frozenset[str] | None:
    """Also the members of the owner's organizations, with the roles that they have there."""
    if caller.user_id == owner.user_id:
        return caller.roles
    shared = [roles for name, roles in caller.organizations.items() if name in owner.organizations]
    return frozenset().union(*shared) if shared else None


def authenticated(caller: Identity, owner: Owner) -> frozenset[str] | None:
    """Everybody who is signed in."""
    del owner
    return caller.roles


#: By the value of `STREAM_ACCESS`.
POLICIES: Final[Mapping[str, Policy]] = {
    "owner": owner_only,
    "organization": organization,
    "authenticated": authenticated,
}

_EVERYTHING: Final = frozenset(Right)


class Authorization:
    """The policy and the rights of roles that the settings name."""

    def __init__(self, settings: Settings) -> None:
        self._policy = POLICIES[settings.stream_access]
        self._rights = {
            role: frozenset(Right(name) for name in names) | ({Right.ALERTS} if "view" in names else set())
            for role, names in settings.role_rights
        }

    def may_publish(self, caller: Identity) -> bool:
        """Whether this caller may register streams of his own."""
        return Right.PUBLISH in self._of_roles(caller.roles)

    def rights(self, caller: Identity, owner: Owner | None) -> frozenset[Right]:
        """What the caller may do with a stream of this owner; empty for a stranger.

        A stream without an owner may be waited for by everybody who could ever have a right to one.
        """
        if owner is None:
            roles = [caller.roles, *caller.organizations.values()]
            return frozenset().union(*(self._of_roles(some) for some in roles))
        roles_here = self._policy(caller, owner)
        return frozenset() if roles_here is None else self._of_roles(roles_here)

    def may_view(self, caller: Identity, owner: Owner | None) -> bool:
        """Whether the caller may see the stream's pictures."""
        return Right.VIEW in self.rights(caller, owner)

    def may_hear(self, caller: Identity, owner: Owner | None) -> bool:
        """Whether the caller may have the stream's alerts, and know that it is there."""
        return Right.ALERTS in self.rights(caller, owner)

    def may_hear_kept(self, caller: Identity, alert_owner: str | None, owner: Owner | None) -> bool:
        """Whether the caller may have an alert that is kept: it belongs to whose the stream was when it came.

        `owner` is whose it is now; of an earlier one only the user is known. An alert of a stream that nobody was
        known to own is for whoever could have waited for it.
        """
        if alert_owner is not None and (owner is None or owner.user_id != alert_owner):
            owner = Owner(alert_owner)
        return self.may_hear(caller, owner if alert_owner is not None else None)

    def alert_scope(self, caller: Identity) -> AlertScope:
        """Whose kept alerts the caller may have. It may be too much; `may_hear_kept` says exactly."""
        own = Right.ALERTS in self._of_roles(caller.roles)
        members_of = [name for name, roles in caller.organizations.items() if Right.ALERTS in self._of_roles(roles)]
        return AlertScope(
            user=caller.user_id,
            own=own,
            organizations=tuple(sorted(members_of)) if self._policy is organization else (),
            any_owner=own and self._policy is authenticated,
            unowned=Right.ALERTS in self.rights(caller, None),
        )

    def may_view_kept(self, caller: Identity, kept_owner: str | None, owner: Owner | None) -> bool:
        """Whether the caller may see a picture that is kept: it belongs to whose the stream was, as an alert does.

        A picture of nobody is for nobody.
        """
        if kept_owner is None:
            return False
        return self.may_view(caller, owner if owner is not None and owner.user_id == kept_owner else Owner(kept_owner))

    def allows(self, subscription: Subscription, owner: Owner | None) -> bool:
        """Whether the subscription is within its viewer's rights."""
        needed = Right.VIEW if subscription.video else Right.ALERTS
        return needed in self.rights(subscription.identity, owner)

    def strangers(self, viewers: Iterable[tuple[Subscription, V]], owner: Owner) -> list[tuple[Subscription, V]]:
        """Of the viewers of a stream, those who may not watch it now that it belongs to `owner`."""
        return [(subscription, viewer) for subscription, viewer in viewers if not self.allows(subscription, owner)]

    def _of_roles(self, roles: frozenset[str]) -> frozenset[Right]:
        if not self._rights:
            return _EVERYTHING
        anybody = self._rights.get(ANY_ROLE, frozenset())
        if not roles:
            return anybody
        return frozenset().union(*(self._rights.get(role, anybody) for role in roles))
