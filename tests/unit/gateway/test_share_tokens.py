"""Tokens of shares: made with the home's key alone, recognized without asking anybody, and what they stand for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.bus.reply_records import ShareRow
from watchout.common.errors import RouterUnavailable, StoreUnavailable
from watchout.common.settings import load
from watchout.gateway.presence import Presence
from watchout.gateway.shares.source import GatewayShares, identity_of
from watchout.gateway.shares.tokens import ID_BYTES, ShareTokens, share_id_of
from watchout.identity import Authenticator, Identity, Token

TOKENS = ShareTokens(b"k" * 32)
ID = share_id_of(bytes(ID_BYTES))
ROW = ShareRow(ID, "cam", "ann", True, 1000, 61_000)


@given(st.binary(min_size=ID_BYTES, max_size=ID_BYTES))
def test_a_token_names_its_share_for_every_gateway_of_the_home_and_no_other(random_bytes: bytes) -> None:
    share_id = share_id_of(random_bytes)
    token = TOKENS.token_of(share_id)
    assert ShareTokens(b"k" * 32).share_of(token) == share_id
    assert ShareTokens(b"x" * 32).share_of(token) is None


@given(st.integers(0, 69), st.characters(codec="ascii"))
def test_a_token_with_one_character_changed_is_none(at: int, character: str) -> None:
    token = TOKENS.token_of(ID)
    changed = token[:at] + character + token[at + 1 :]
    assert (TOKENS.share_of(changed) == ID) is (changed == token)


@pytest.mark.parametrize("text", ["", "wos1_", "wos1_" + "A" * 65, "x" * 32, "a.b.c", "wos1_é" + "A" * 64, "é" * 70])
def test_other_texts_are_no_tokens(text: str) -> None:
    assert TOKENS.share_of(text) is None


def test_a_share_stands_for_the_right_to_view_one_stream_of_its_owner() -> None:
    identity = identity_of(ROW)
    assert identity.grants is not None
    assert (identity.grants.view, identity.grants.alerts, identity.grants.publish) == (("cam",), ("cam",), ())
    assert (identity.grants.owner, identity.grants.may_acknowledge, identity.ends_at) == ("ann", False, 61.0)
    assert identity.user_id != "ann", "its sockets count for nobody's limits but its own"
    without = identity_of(ShareRow(ID, "cam", "ann", False, 1000, 61_000))
    assert without.grants is not None
    assert without.grants.alerts == ()


class Rows:
    """A router that has these shares, or does not answer."""

    def __init__(self, *rows: ShareRow) -> None:
        self.rows = list(rows)
        self.away = False

    async def share(self, share_id: str) -> ShareRow | None:
        if self.away:
            raise RouterUnavailable("away")
        return next((row for row in self.rows if row.id == share_id), None)

    async def ended(self, shares: Mapping[str, str]) -> tuple[list[str], list[str]]:
        if self.away:
            raise RouterUnavailable("away")
        self.asked = dict(shares)
        return [share for share in shares if share not in [row.id for row in self.rows]], ["c"]


async def test_a_share_signs_in_while_the_router_has_it_and_no_other_method_ever_sees_its_token() -> None:
    rows: Any = Rows(ROW)
    asked: list[str] = []

    async def introspect(token: str, *, recheck: bool) -> None:
        asked.append(token)

    introspection: Any = SimpleNamespace(verify=introspect)
    made = Authenticator(load({"AUTH_METHODS": "introspection", "INTROSPECTION_URL": "https://x.example/"}), None, None,
                         introspection)  # fmt: skip
    made.shares = GatewayShares(TOKENS, rows, enabled=True)
    token = Token(TOKENS.token_of(ID))
    assert await made.verify(token, fresh=True) == identity_of(ROW)
    rows.rows.clear()
    assert await made.verify(token, fresh=True) is None
    rows.away = True
    with pytest.raises(StoreUnavailable):
        await made.verify(token, fresh=True)
    assert asked == []
    assert await made.verify(Token("wos1_" + "A" * 65), fresh=True) is None
    assert asked == ["wos1_" + "A" * 65], "what was not made here may be anybody's token"
    made.shares = GatewayShares(TOKENS, rows, enabled=False)
    assert await made.verify(token, fresh=True) is None
    await asyncio.sleep(0)


def test_members_of_an_ended_share_are_found_and_others_are_not() -> None:
    presence: Presence[str] = Presence()
    other = ShareRow("b" * 22, "cam", "ann", True, 1000, 61_000)
    presence.add("one", identity_of(ROW), 0.0)
    presence.add("two", identity_of(ROW), 0.0)
    presence.add("else", identity_of(other), 0.0)
    presence.add("ann", Identity("ann", "s1"), 0.0)
    assert sorted(str(each.share) for each in presence.shares()) == sorted([ID, other.id])
    assert sorted(presence.of_shares([ID, "c" * 22])) == ["one", "two"]
    assert sorted(presence.expired(61.0)) == ["else", "one", "two"]
    presence.remove("one")
    presence.remove("two")
    assert presence.shares() == [identity_of(other)]


async def test_which_shares_have_ended_is_asked_with_their_streams() -> None:
    rows: Any = Rows(ROW)
    other = ShareRow("b" * 22, "yard", "ann", True, 1000, 61_000)
    shares = GatewayShares(TOKENS, rows, enabled=True)
    assert await shares.ended([identity_of(ROW), identity_of(other)]) == ([other.id], 1)
    assert rows.asked == {ID: "cam", other.id: "yard"}
    rows.away = True
    with pytest.raises(StoreUnavailable):
        await shares.ended([identity_of(ROW)])
