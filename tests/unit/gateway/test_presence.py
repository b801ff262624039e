"""Who is here, and what looking again finds of them."""

from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from watchout.gateway.presence import Presence
from watchout.identity import Identity


def on_session(session: str, user: str = "ann", **fields: object) -> Identity:
    return Identity(user, session, **fields)  # type: ignore[arg-type]


def filled(**members: Identity) -> Presence[str]:
    presence: Presence[str] = Presence()
    for member, identity in members.items():
        presence.add(member, identity, 100.0)
    return presence


def test_sockets_of_one_session_are_one_to_look_up_and_end_together() -> None:
    presence = filled(phone=on_session("s1"), tablet=on_session("s1"), other=on_session("s2", "bob"))
    assert sorted(presence.sessions()) == ["s1", "s2"]
    ended, renewed = presence.update_sessions(["s1", "s2"], {"s2": on_session("s2", "bob")})
    assert sorted(ended) == ["phone", "tablet"]
    assert renewed == []


def test_a_session_that_was_only_prolonged_changes_nothing() -> None:
    presence = filled(phone=on_session("s1", expires_at=200.0))
    assert presence.update_sessions(["s1"], {"s1": on_session("s1", expires_at=900.0)}) == ([], [])


def test_new_roles_or_organizations_renew_once() -> None:
    presence = filled(phone=on_session("s1"))
    promoted = on_session("s1", roles=frozenset({"admin"}))
    assert presence.update_sessions(["s1"], {"s1": promoted}) == ([], [("phone", promoted)])
    assert presence.update_sessions(["s1"], {"s1": promoted}) == ([], [])
    joined = on_session("s1", roles=frozenset({"admin"}), organizations={"acme": frozenset({"member"})})
    assert presence.update_sessions(["s1"], {"s1": joined}) == ([], [("phone", joined)])


def test_a_session_that_now_belongs_to_somebody_else_has_ended() -> None:
    presence = filled(phone=on_session("s1", "ann"))
    assert presence.update_sessions(["s1"], {"s1": on_session("s1", "bob")}) == (["phone"], [])


def test_who_came_after_the_question_is_not_touched_by_the_answer() -> None:
    presence = filled(phone=on_session("s1"))
    asked = presence.sessions()
    presence.add("late", on_session("s2", "bob"), 100.0)
    assert presence.update_sessions(asked, {"s1": on_session("s1")}) == ([], [])


def test_who_has_left_meanwhile_is_not_in_the_answer() -> None:
    presence = filled(phone=on_session("s1"))
    presence.remove("phone")
    presence.remove("phone")
    assert presence.update_sessions(["s1"], {}) == ([], [])
    assert len(presence) == 0


def test_a_change_of_a_session_or_of_a_user_concerns_their_sessions_that_are_here() -> None:
    presence = filled(
        phone=on_session("s1"), tablet=on_session("s2"), other=on_session("s3", "bob"), token=Identity("ann")
    )
    assert presence.sessions_of("s3", None) == {"s3"}
    assert presence.sessions_of(None, "ann") == {"s1", "s2"}
    assert presence.sessions_of("s3", "ann") == {"s1", "s2", "s3"}
    assert presence.sessions_of("elsewhere", "nobody") == set()


def test_without_a_session_the_end_is_the_end() -> None:
    presence = filled(
        jwt=Identity("ann", expires_at=200.0, ends_at=200.0),
        endless=Identity("bob"),
        row=on_session("s1", "eve", expires_at=150.0),
    )
    assert presence.expired(199.9) == []
    assert presence.expired(200.0) == ["jwt"]
    presence.remove("jwt")
    assert presence.expired(1e12) == []


def test_an_end_that_nothing_prolongs_holds_beside_a_session_and_an_endpoint_too() -> None:
    presence = filled(
        a=on_session("s1", ends_at=200.0), b=Identity("bob", introspected="token-b", ends_at=200.0, expires_at=200.0)
    )
    presence.update_sessions(["s1"], {"s1": on_session("s1", roles=frozenset({"admin"}))})
    assert presence.update_introspected("b", Identity("bob", roles=frozenset({"admin"})), 150.0) == ([], [])
    assert sorted(presence.expired(200.0)) == ["a", "b"]


def test_an_introspected_token_is_asked_for_again_after_a_while_and_at_its_end() -> None:
    presence = filled(
        a=Identity("ann", expires_at=110.0, introspected="token-a"), b=Identity("bob", introspected="token-b")
    )
    assert presence.due_introspections(105.0, 30.0) == []
    assert presence.due_introspections(110.0, 30.0) == [("a", "token-a")]
    assert presence.expired(500.0) == []  # the endpoint decides, not the clock
    assert presence.update_introspected("a", Identity("ann", expires_at=300.0), 110.0) == ([], [])
    assert presence.due_introspections(120.0, 30.0) == []
    assert presence.due_introspections(130.0, 30.0) == [("b", "token-b")]
    promoted = Identity("bob", roles=frozenset({"admin"}), introspected="token-b")
    assert presence.update_introspected("b", promoted, 130.0) == ([], [("b", promoted)])
    assert presence.due_introspections(139.0, 30.0) == []
    assert presence.update_introspected("gone", promoted, 130.0) == ([], [])


@pytest.mark.parametrize("found", [None, Identity("eve", introspected="token-b")])
def test_a_token_that_is_nobodys_now_or_somebody_elses_ends(found: Identity | None) -> None:
    presence = filled(b=Identity("bob", introspected="token-b"), other=Identity("eve"))
    assert presence.update_introspected("b", found, 130.0) == (["b"], [])
    presence.remove("b")
    assert presence.due_introspections(1e12, 1.0) == []
    assert presence.users_without_session() == ["eve"]


def test_a_token_whose_endpoint_is_away_is_asked_for_again_in_the_next_round() -> None:
    presence = filled(b=Identity("bob", introspected="token-b"))
    assert presence.due_introspections(130.0, 30.0) == presence.due_introspections(131.0, 30.0) == [("b", "token-b")]


def test_what_users_without_a_session_belong_to_is_asked_for_by_the_user() -> None:
    presence = filled(jwt=Identity("ann"), second=Identity("ann"), row=on_session("s1", "bob"))
    assert presence.users_without_session() == ["ann"]
    acme = {"acme": frozenset({"member"})}
    renewed = presence.update_organizations(["ann"], {"ann": acme})
    assert sorted(member for member, _ in renewed) == ["jwt", "second"]
    assert all(identity.organizations == acme for _, identity in renewed)
    assert presence.update_organizations(["ann"], {"ann": acme}) == []
    assert sorted(member for member, _ in presence.update_organizations(["ann"], {})) == ["jwt", "second"]


class Coming(RuleBasedStateMachine):
    """Members come, go and are looked at in any order; the indexes hold what the members say and nothing else."""

    MEMBERS = st.integers(0, 4)

    def __init__(self) -> None:
        super().__init__()
        self.presence: Presence[int] = Presence()
        self.here: dict[int, Identity] = {}

    @rule(
        member=MEMBERS,
        session=st.none() | st.sampled_from(["s1", "s2"]),
        user=st.sampled_from(["ann", "bob"]),
        token=st.none() | st.just("t"),
    )
    def comes(self, member: int, session: str | None, user: str, token: str | None) -> None:
        self.here[member] = Identity(user, session, introspected=token)
        self.presence.add(member, self.here[member], 0.0)

    @rule(member=MEMBERS, user=st.sampled_from(["ann", "bob"]))
    def introspected(self, member: int, user: str) -> None:
        ended, renewed = self.presence.update_introspected(member, Identity(user, introspected="t"), 0.0)
        assert renewed == []
        for each in ended:
            assert self.here.pop(each).user_id != user
            self.presence.remove(each)

    @rule(member=MEMBERS)
    def goes(self, member: int) -> None:
        self.here.pop(member, None)
        self.presence.remove(member)

    @rule(live=st.sets(st.sampled_from(["s1", "s2"])), user=st.sampled_from(["ann", "bob"]))
    def looked_up(self, live: set[str], user: str) -> None:
        found = {session: Identity(user, session, roles=frozenset({"r"})) for session in live}
        ended, renewed = self.presence.update_sessions(self.presence.sessions(), found)
        for member in ended:
            identity = self.here.pop(member)
            assert identity.session_id is not None
            assert identity.session_id not in live or identity.user_id != user
            self.presence.remove(member)
        for member, identity in renewed:
            assert identity.introspected == self.here[member].introspected
            self.here[member] = identity

    @invariant()
    def the_indexes_say_what_the_members_say(self) -> None:
        assert len(self.presence) == len(self.here)
        sessions = {i.session_id for i in self.here.values() if i.session_id is not None}
        assert set(self.presence.sessions()) == sessions
        without = {i.user_id for i in self.here.values() if i.session_id is None}
        assert set(self.presence.users_without_session()) == without
        tokens = {member for member, i in self.here.items() if i.introspected is not None}
        assert {member for member, _ in self.presence.due_introspections(math.inf, 1.0)} == tokens


TestComing = Coming.TestCase


def test_the_introspection_of_a_token_that_was_replaced_meanwhile_is_void() -> None:
    presence: Presence[str] = Presence()
    presence.add("a", Identity("ann", introspected="old"), 0.0)
    presence.add("a", Identity("ann", introspected="new"), 1.0)
    assert presence.update_introspected("a", None, 2.0, token="old") == ([], [])
    assert presence.update_introspected("a", None, 2.0, token="new") == (["a"], [])


def test_who_changed_to_another_kind_of_credential_is_checked_by_that_alone() -> None:
    presence: Presence[str] = Presence()
    presence.add("a", Identity("ann", "s1"), 0.0)
    presence.add("a", Identity("ann", ends_at=50.0), 1.0)
    assert presence.sessions() == []
    assert presence.expired(49.0) == []
    assert presence.expired(50.0) == ["a"]
    presence.add("a", Identity("ann", "s2"), 2.0)
    assert presence.expired(100.0) == []
    assert presence.sessions() == ["s2"]
