"""Whose kept alerts a caller may have, as the router is asked for them: never too little, and never a stranger's."""

from __future__ import annotations

import itertools

import pytest

from watchout.common.settings import Settings, load
from watchout.gateway.authorization import Authorization
from watchout.gateway.model import Owner
from watchout.identity import Grants, Identity

ROLES = (frozenset(), frozenset({"guard"}), frozenset({"nobody"}), frozenset({"guard", "nobody"}))
RIGHTS = ("", "guard:alerts,nobody:none,*:publish", "guard:view,nobody:none,*:alerts")
#: An alert's owner, and whose its stream now is.
ALERTS = [
    (alert_owner, now_is)
    for alert_owner in (None, "ann", "bob")
    for now_is in (None, Owner("ann"), Owner("ann", frozenset({"acme"})), Owner("bob", frozenset({"acme", "other"})))
]


@pytest.mark.parametrize("policy", ["owner", "organization", "authenticated"])
@pytest.mark.parametrize("rights", RIGHTS)
def test_the_reach_of_a_caller_has_every_alert_that_he_may_have(policy, rights):
    environ = {"STREAM_ACCESS": policy, "ROLE_RIGHTS": rights, "DATABASE_URL": "postgres://user@host/db"}
    access = Authorization(load(environ))
    asked = 0
    for own, in_acme, in_other in itertools.product(ROLES, (None, *ROLES), (None, *ROLES)):
        organizations = {name: roles for name, roles in (("acme", in_acme), ("other", in_other)) if roles is not None}
        ann = Identity("ann", "s", roles=own, organizations=organizations)
        scope = access.alert_scope(ann)
        for alert_owner, now_is in ALERTS:
            names = now_is.organizations if now_is is not None and now_is.user_id == alert_owner else frozenset()
            if access.may_receive_stored_alert(ann, alert_owner, now_is, "cam"):
                asked += 1
                assert scope.includes("cam", alert_owner, names), (ann, alert_owner, now_is)
            elif alert_owner == "bob" and (policy == "owner" or not names & organizations.keys()):
                assert not scope.includes("cam", alert_owner, names) or policy == "authenticated"
    assert asked


@pytest.mark.parametrize("policy", ["owner", "organization"])
def test_a_strangers_alerts_are_not_within_reach(policy):
    access = Authorization(load({"STREAM_ACCESS": policy, "DATABASE_URL": "postgres://user@host/db"}))
    scope = access.alert_scope(Identity("ann", "s", organizations={"acme": frozenset()}))
    assert scope.includes("cam", "ann", ())
    assert not scope.includes("cam", "bob", ())
    assert not scope.includes("cam", "bob", ("other",))
    assert scope.includes("cam", "bob", ("acme", "other")) is (policy == "organization")


def test_the_scope_of_granted_alerts_is_that_of_their_streams_whoever_owns_them() -> None:
    granted = Identity("eve", grants=Grants(view=("*",), alerts=("cam-?",)))
    scope = Authorization(Settings()).alert_scope(granted)
    assert scope.owners() is None
    for stream, may in (("cam-1", True), ("cam-11", False), ("door", False)):
        assert scope.includes(stream, "ann", ()) is scope.includes(stream, None, ()) is may
    none = Authorization(Settings()).alert_scope(Identity("eve", grants=Grants(view=("*",))))
    assert not none.includes("cam-1", "eve", ())
