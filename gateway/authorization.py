"""Decides what a user may do with a stream, by one policy and the permissions of roles. Pure.

It is asked at register, at subscribe, by each HTTP path, and again when a user's session or a stream's owner changes.
A policy returns the roles that a user has towards a stream, None for none. To add one, add a function to
`POLICIES`, and what it needs to `Identity` or `Owner`. What a token itself grants (`Grants`) takes the place of all
that. The router is not asked: permissions derive from the session store, which only the gateway knows.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from watchout.common.bus.messages import AlertScope
from watchout.common.settings import Settings
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.model import Owner
from watchout.identity import Grants, Identity

#: Stands in `ROLE_RIGHTS` for every role that is not named there.
ANY_ROLE: Final = "*"

V = TypeVar("V")


class Permission(enum.StrEnum):
    """What a user may do with a stream; returned in sets by `Authorization.permissions`.

    `VIEW` in the settings includes `ALERTS`; in `Grants` each stands for itself.
    """

    PUBLISH = "publish"
    VIEW = "view"
    ALERTS = "alerts"


Policy = Callable[[Identity, Owner], frozenset[str] | None]


def owner_only(caller: Identity, owner: Owner) -> frozenset[str] | None:
    """Permit the owner only."""
    return caller.roles if caller.user_id == owner.user_id else None


def organization(caller: Identity, owner: Owner) -> frozenset[str] | None:
    """Permit the owner, and members of the owner's organizations with the roles that they have there."""
    if caller.user_id == owner.user_id:
        return caller.roles
    shared = [roles for name, roles in caller.organizations.items() if name in owner.organizations]
    return frozenset().union(*shared) if shared else None


def authenticated(caller: Identity, owner: Owner) -> frozenset[str] | None:
    """Permit every user with a session."""
    del owner
    return caller.roles


#: By the value of `STREAM_ACCESS`.
POLICIES: Final[Mapping[str, Policy]] = {
    "owner": owner_only,
    "organization": organization,
    "authenticated": authenticated,
}

#: A viewer needs one of these to subscribe.
VIEWER_PERMISSIONS: Final = frozenset({Permission.VIEW, Permission.ALERTS})
_EVERYTHING: Final = frozenset(Permission)


class Authorization:
    """Decides users' permissions on streams by the settings `STREAM_ACCESS` and `ROLE_RIGHTS`.

    One per gateway, called by client handlers, HTTP requests and `RouterClient`. In all methods, an `owner` of None
    stands for a stream that nobody has registered.
    """

    def __init__(self, settings: Settings) -> None:
        self._policy = POLICIES[settings.stream_access]
        self._permissions = {
            role: frozenset(Permission(name) for name in names) | ({Permission.ALERTS} if "view" in names else set())
            for role, names in settings.role_rights
        }

    def may_publish(self, caller: Identity, stream: str | None) -> bool:
        """Return whether the user may register a stream of this id; None: any stream at all."""
        if (grants := caller.grants) is not None:
            return bool(grants.publish) if stream is None else grants.allows("publish", stream)
        return Permission.PUBLISH in self._of_roles(caller.roles)

    def permissions(self, caller: Identity, owner: Owner | None, stream: str) -> frozenset[Permission]:
        """Return what the user may do with a stream of this owner and id; empty for nothing.

        Without an owner: all that the user could have with any owner, so that they may wait for the stream. What a
        token grants takes the place of all that.
        """
        if caller.grants is not None:
            return _granted(caller.grants, owner, stream)
        if owner is None:
            roles = [caller.roles, *caller.organizations.values()]
            return frozenset().union(*(self._of_roles(some) for some in roles))
        roles_here = self._policy(caller, owner)
        return frozenset() if roles_here is None else self._of_roles(roles_here)

    def may_view(self, caller: Identity, owner: Owner | None, stream: str) -> bool:
        """Return whether the user may see the stream's frames."""
        return Permission.VIEW in self.permissions(caller, owner, stream)

    def may_receive_alerts(self, caller: Identity, owner: Owner | None, stream: str) -> bool:
        """Return whether the user may receive the stream's alerts."""
        return Permission.ALERTS in self.permissions(caller, owner, stream)

    def may_know(self, caller: Identity, owner: Owner | None, stream: str) -> bool:
        """Return whether the user may know that the stream exists: who may see its frames or receive its alerts."""
        return bool(self.permissions(caller, owner, stream) & VIEWER_PERMISSIONS)

    def may_receive_stored_alert(
        self, caller: Identity, alert_owner: str | None, owner: Owner | None, stream: str
    ) -> bool:
        """Return whether the user may receive a stored alert, which belongs to the stream's owner of its time.

        Args:
            caller: The user.
            alert_owner: Id of the user who owned the stream when the alert was raised; None: it had no known owner, and
                everyone who could have waited for the stream may receive it.
            owner: The present owner; only of this one the organizations are known.
            stream: Id of the stream.
        """
        if alert_owner is not None and (owner is None or owner.user_id != alert_owner):
            owner = Owner(alert_owner)
        return self.may_receive_alerts(caller, owner if alert_owner is not None else None, stream)

    def may_acknowledge(self, caller: Identity) -> bool:
        """Return whether the user may acknowledge the alerts that they may receive."""
        return caller.grants is None or caller.grants.may_acknowledge

    def alert_scope(self, caller: Identity) -> AlertScope:
        """Return the owners whose stored alerts the user may receive, for the router's query.

        It may include too many alerts: judge each of the result by `may_receive_stored_alert`.
        """
        if (grants := caller.grants) is not None:
            anyone = grants.owner is None
            return AlertScope(
                user=grants.owner or "", own=not anyone, any_owner=anyone, unowned=True, streams=grants.alerts
            )
        own = Permission.ALERTS in self._of_roles(caller.roles)
        member_of = [name for name, roles in caller.organizations.items() if Permission.ALERTS in self._of_roles(roles)]
        return AlertScope(
            user=caller.user_id,
            own=own,
            organizations=tuple(sorted(member_of)) if self._policy is organization else (),
            any_owner=own and self._policy is authenticated,
            unowned=Permission.ALERTS in self.permissions(caller, None, ""),
        )

    def may_view_stored_picture(
        self, caller: Identity, stored_owner: str | None, owner: Owner | None, stream: str
    ) -> bool:
        """Return whether the user may see a stored picture, which belongs to the stream's owner of its time.

        Args:
            caller: The user.
            stored_owner: Id of the user who owned the stream at that time; None: nobody may see the picture.
            owner: The present owner; only of this one the organizations are known.
            stream: Id of the stream.
        """
        if stored_owner is None:
            return False
        present = owner if owner is not None and owner.user_id == stored_owner else Owner(stored_owner)
        return self.may_view(caller, present, stream)

    def allows(self, subscription: Subscription, owner: Owner | None) -> bool:
        """Return whether the viewer has the permissions that the subscription needs, for frames and for alerts."""
        permissions = self.permissions(subscription.identity, owner, subscription.stream)
        if not subscription.video and not subscription.alerts:
            return Permission.ALERTS in permissions
        return (Permission.VIEW in permissions or not subscription.video) and (
            Permission.ALERTS in permissions or not subscription.alerts
        )

    def not_permitted(self, viewers: Iterable[tuple[Subscription, V]], owner: Owner) -> list[tuple[Subscription, V]]:
        """Return those viewers of a stream whose subscriptions a new `owner` does not permit. The caller ends them."""
        return [(subscription, viewer) for subscription, viewer in viewers if not self.allows(subscription, owner)]

    def _of_roles(self, roles: frozenset[str]) -> frozenset[Permission]:
        if not self._permissions:
            return _EVERYTHING
        anybody = self._permissions.get(ANY_ROLE, frozenset())
        if not roles:
            return anybody
        return frozenset().union(*(self._permissions.get(role, anybody) for role in roles))


def _granted(grants: Grants, owner: Owner | None, stream: str) -> frozenset[Permission]:
    """Return what a token grants for a stream."""
    if grants.owner is not None and owner is not None and owner.user_id != grants.owner:
        return frozenset()
    return frozenset(each for each in Permission if grants.allows(each.value, stream))
