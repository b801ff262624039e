"""What is denied is told once for each kind of subject, however many ids there are."""

from __future__ import annotations

import secrets

from watchout.common.bus.nats.denials import MAX_KINDS, Denials


def test_each_kind_is_told_once_and_again_over_another_connection() -> None:
    denials = Denials()
    assert denials.explain() == ""
    said = [denials.note("publish", f"site.member.{secrets.token_hex(8)}.3") for _ in range(1_000)]
    assert said[1:] == [None] * 999
    assert said[0] is not None
    assert denials.note("subscription", f"site.member.{secrets.token_hex(8)}.3") is not None, "another right"
    assert denials.note("publish", f"site.member.{secrets.token_hex(8)}.4") is not None, "another slot"
    keys = [denials.note("publish", f"$KV.site-records.shares.{number}") for number in range(3)]
    assert [key is None for key in keys] == [False, True, True]
    assert denials.note("publish", "$KV.site-slots.slot.1") is not None
    assert denials.explain() == said[0]
    denials.clear()
    assert denials.explain() == ""
    assert denials.note("publish", f"site.member.{secrets.token_hex(8)}.3") is not None


def test_kinds_are_bounded() -> None:
    denials = Denials()
    said = [denials.note("publish", f"other.{number}") for number in range(2 * MAX_KINDS)]
    assert [each is None for each in said] == [False] * MAX_KINDS + [True] * MAX_KINDS
