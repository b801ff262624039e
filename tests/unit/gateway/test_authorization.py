"""Who may do what with a stream."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.settings import Settings, load
from watchout.gateway.authorization import POLICIES, Authorization, Permission
from watchout.gateway.hub.subscription import Subscription
from watchout.gateway.model import Owner
from watchout.identity import Grants, Identity

ANN = Identity("ann", "1", organizations={"acme": frozenset({"owner"})})
BOB = Identity("bob", "2", organizations={"acme": frozenset({"member"}), "club": frozenset({"admin"})})
EVE = Identity("eve", "3", organizations={"club": frozenset({"owner"})})
OF_ANN = Owner("ann", frozenset({"acme"}))

EVERYTHING = frozenset(Permission)
WATCHING = frozenset({Permission.VIEW, Permission.ALERTS})
NOTHING: frozenset[Permission] = frozenset()


def access(policy: str, roles: str = "") -> Authorization:
    return Authorization(load({"STREAM_ACCESS": policy, "ROLE_RIGHTS": roles, "DATABASE_URL": "sqlite:/app.db"}))


@pytest.mark.parametrize(
    ("policy", "caller", "owner", "rights"),
    [
        ("owner", ANN, OF_ANN, EVERYTHING),
        ("owner", BOB, OF_ANN, NOTHING),
        ("owner", BOB, None, EVERYTHING),
        ("owner", Identity("", "4"), OF_ANN, NOTHING),
        ("owner", ANN, Owner("Ann"), NOTHING),
        ("owner", ANN, Owner(""), NOTHING),
        ("organization", ANN, OF_ANN, EVERYTHING),
        ("organization", BOB, OF_ANN, EVERYTHING),
        ("organization", EVE, OF_ANN, NOTHING),
        ("organization", BOB, Owner("ann"), NOTHING),
        ("organization", EVE, Owner("bob", frozenset({"acme", "club"})), EVERYTHING),
        ("authenticated", ANN, OF_ANN, EVERYTHING),
        ("authenticated", EVE, OF_ANN, EVERYTHING),
    ],
)
def test_as_what_a_caller_stands_to_a_stream(
    policy: str, caller: Identity, owner: Owner | None, rights: frozenset[Permission]
) -> None:
    assert access(policy).permissions(caller, owner, "cam") == rights


@pytest.mark.parametrize(
    ("role", "rights"),
    [
        ("camera", {Permission.PUBLISH}),
        ("operator", WATCHING),
        ("guard", {Permission.ALERTS}),
        ("blocked", NOTHING),
        ("anything", WATCHING),
    ],
)
def test_a_role_gives_its_rights_and_no_others(role: str, rights: frozenset[Permission]) -> None:
    ours = access("authenticated", "camera:publish,operator:view,guard:alerts,blocked:none,*:view")
    caller = Identity("ann", roles=frozenset({role}))
    assert ours.permissions(caller, Owner("bob"), "cam") == rights
    assert ours.may_publish(caller, "cam") is (Permission.PUBLISH in rights)
    assert ours.may_view(caller, Owner("bob"), "cam") is (Permission.VIEW in rights)
    assert ours.may_receive_alerts(caller, Owner("bob"), "cam") is (Permission.ALERTS in rights)


def test_several_roles_add_up() -> None:
    caller = Identity("ann", roles=frozenset({"camera", "guard"}))
    assert access("owner", "camera:publish,guard:alerts").permissions(caller, Owner("ann"), "cam") == {
        Permission.PUBLISH,
        Permission.ALERTS,
    }


def test_whom_the_mapping_does_not_name_it_gives_nothing() -> None:
    ours = access("owner", "camera:publish")
    for caller in (Identity("ann"), Identity("ann", roles=frozenset({"user"}))):
        assert ours.permissions(caller, Owner("ann"), "cam") == NOTHING
        assert not ours.may_publish(caller, "cam")
        assert ours.permissions(caller, None, "cam") == NOTHING


def test_in_an_organization_the_members_roles_in_it_count_and_at_home_the_users_own() -> None:
    ours = access("organization", "member:alerts,admin:view,user:publish+view")
    bob = Identity("bob", roles=frozenset({"user"}), organizations=BOB.organizations)
    assert ours.permissions(bob, OF_ANN, "cam") == {Permission.ALERTS}
    assert ours.permissions(bob, Owner("eve", frozenset({"club"})), "cam") == WATCHING
    assert ours.permissions(bob, Owner("bob", frozenset({"acme"})), "cam") == EVERYTHING


def test_of_two_shared_organizations_both_roles_count() -> None:
    ours = access("organization", "member:alerts,admin:view")
    assert ours.permissions(BOB, Owner("eve", frozenset({"acme", "club"})), "cam") == WATCHING


def test_who_could_have_a_right_to_a_stream_may_wait_for_one() -> None:
    ours = access("organization", "member:alerts,user:none")
    assert ours.permissions(
        Identity("bob", roles=frozenset({"user"}), organizations=BOB.organizations), None, "cam"
    ) >= {Permission.ALERTS}
    assert ours.permissions(Identity("dan", roles=frozenset({"user"})), None, "cam") == NOTHING


@pytest.mark.parametrize(
    ("alert_owner", "owner", "may"),
    [
        (None, None, True),
        (None, OF_ANN, True),
        ("ann", OF_ANN, True),
        ("ann", None, False),
        ("ann", Owner("eve", frozenset({"acme"})), False),
        ("bob", OF_ANN, True),
        ("eve", OF_ANN, False),
    ],
)
def test_a_kept_alert_belongs_to_whose_the_stream_was(alert_owner: str | None, owner: Owner | None, may: bool) -> None:
    assert access("organization").may_receive_stored_alert(BOB, alert_owner, owner, "cam") is may


def test_when_the_owner_changes_only_strangers_lose_their_right() -> None:
    own = (Subscription("door", ANN, video=True, alerts=False), "own")
    strange = (Subscription("door", EVE, video=True, alerts=False), "strange")
    assert access("owner").not_permitted([own, strange], Owner("ann")) == [strange]
    assert access("owner").not_permitted([own, strange], Owner("eve")) == [own]
    assert access("authenticated").not_permitted([own, strange], Owner("ann")) == []
    assert access("owner").not_permitted([], Owner("ann")) == []


def test_alerts_without_pictures_are_within_the_rights_of_who_may_only_have_those() -> None:
    ours, guard = access("authenticated", "guard:alerts"), Identity("bob", roles=frozenset({"guard"}))
    assert ours.allows(Subscription("door", guard, video=False, alerts=True), OF_ANN)
    assert not ours.allows(Subscription("door", guard, video=True, alerts=True), OF_ANN)


NAMES = st.sampled_from(["ann", "bob", "eve"])
ROLES = st.frozensets(st.sampled_from(["owner", "member", "guard", "other"]), max_size=3)
ORGANIZATIONS = st.dictionaries(st.sampled_from(["acme", "club", "firm"]), ROLES, max_size=3)
CALLERS = st.builds(Identity, NAMES, roles=ROLES, organizations=ORGANIZATIONS)
OWNERS = st.builds(Owner, NAMES, st.frozensets(st.sampled_from(["acme", "club", "firm"]), max_size=3))
MAPPINGS = st.sampled_from(["", "owner:publish+view,guard:alerts,other:none", "member:view,*:alerts", "*:none"])


@given(CALLERS, OWNERS, MAPPINGS)
def test_each_policy_lets_in_whom_the_narrower_one_does(caller: Identity, owner: Owner, mapping: str) -> None:
    strict, shared = access("owner", mapping), access("organization", mapping)
    assert strict.permissions(caller, owner, "cam") <= shared.permissions(caller, owner, "cam")
    if caller.user_id != owner.user_id and not caller.organizations.keys() & owner.organizations:
        assert shared.permissions(caller, owner, "cam") == NOTHING
    for policy in POLICIES:
        ours = access(policy, mapping)
        rights = ours.permissions(caller, owner, "cam")
        assert Permission.VIEW not in rights or Permission.ALERTS in rights


@given(CALLERS, OWNERS, MAPPINGS)
def test_who_has_a_right_to_a_stream_could_have_waited_for_it(caller: Identity, owner: Owner, mapping: str) -> None:
    for policy in POLICIES:
        ours = access(policy, mapping)
        assert ours.permissions(caller, owner, "cam") <= ours.permissions(caller, None, "cam")


def test_every_policy_of_the_settings_is_there() -> None:
    for policy, roles in itertools.product(("owner", "organization", "authenticated"), ("", "*:none")):
        assert access(policy, roles)
    assert Settings().stream_access in POLICIES


@pytest.mark.parametrize(
    ("kept_owner", "owner", "may"),
    [
        ("ann", OF_ANN, True),
        ("ann", None, False),
        ("ann", Owner("eve", frozenset({"club"})), False),
        ("bob", None, True),
        ("bob", OF_ANN, True),
        ("eve", Owner("eve", frozenset({"club"})), True),
        (None, None, False),
        (None, OF_ANN, False),
    ],
)
def test_a_kept_picture_belongs_to_whose_the_stream_was_and_one_of_nobody_is_for_nobody(
    kept_owner: str | None, owner: Owner | None, may: bool
) -> None:
    assert access("organization").may_view_stored_picture(BOB, kept_owner, owner, "cam") is may


def test_who_may_only_have_alerts_may_not_see_their_pictures() -> None:
    guard = Identity("ann", "1", roles=frozenset({"guard"}))
    for role, may in (("guard:alerts", False), ("guard:view", True)):
        assert access("owner", role).may_view_stored_picture(guard, "ann", OF_ANN, "cam") is may


GRANTED = Identity(
    "eve", roles=frozenset({"admin"}), grants=Grants(publish=("cam-1",), view=("cam-*",), alerts=("d?",))
)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("owner", [None, OF_ANN, Owner("eve")])
def test_grants_are_all_that_a_token_permits_whoever_owns_the_stream(policy: str, owner: Owner | None) -> None:
    ours = access(policy, "admin:publish+view")
    assert ours.permissions(GRANTED, owner, "cam-1") == {Permission.PUBLISH, Permission.VIEW}
    assert ours.permissions(GRANTED, owner, "cam-2") == {Permission.VIEW}
    assert ours.permissions(GRANTED, owner, "d1") == {Permission.ALERTS}
    assert ours.permissions(GRANTED, owner, "other") == NOTHING
    assert [ours.may_publish(GRANTED, stream) for stream in ("cam-1", "cam-2", None)] == [True, False, True]
    assert [ours.may_know(GRANTED, owner, stream) for stream in ("cam-2", "d1", "other")] == [True, True, False]
    assert ours.may_receive_stored_alert(GRANTED, "bob", owner, "d1")
    assert not ours.may_receive_stored_alert(GRANTED, "eve", owner, "cam-1")
    assert ours.may_view_stored_picture(GRANTED, "bob", owner, "cam-1")
    assert not ours.may_view_stored_picture(GRANTED, "bob", owner, "d1")
    assert ours.may_acknowledge(GRANTED)


def test_grants_that_are_bound_to_an_owner_end_with_that_owner() -> None:
    shared = Identity("share", grants=Grants(view=("cam",), alerts=("cam",), owner="ann", may_acknowledge=False))
    ours = access("authenticated")
    assert ours.permissions(shared, OF_ANN, "cam") == ours.permissions(shared, None, "cam") == WATCHING
    assert ours.permissions(shared, Owner("bob"), "cam") == NOTHING
    assert not ours.may_receive_stored_alert(shared, "bob", OF_ANN, "cam")
    assert not ours.may_view_stored_picture(shared, "bob", OF_ANN, "cam")
    assert not ours.may_acknowledge(shared)


def test_a_subscription_to_frames_and_alerts_needs_both_grants() -> None:
    ours = access("owner")
    both = Identity("eve", grants=Grants(view=("cam",), alerts=("cam",)))
    for identity, video, alerts, may in (
        (both, True, True, True),
        (GRANTED, True, True, False),
        (Identity("eve", grants=Grants(view=("cam",))), True, True, False),
        (Identity("eve", grants=Grants(view=("cam",))), True, False, True),
        (Identity("eve", grants=Grants(alerts=("cam",))), True, True, False),
        (Identity("eve", grants=Grants(alerts=("cam",))), False, True, True),
        (Identity("eve", grants=Grants()), False, False, False),
    ):
        assert ours.allows(Subscription("cam", identity, video=video, alerts=alerts), OF_ANN) is may
