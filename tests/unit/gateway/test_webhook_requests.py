"""Signed requests of services, and what was taken before."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.alerts.model import check_draft
from watchout.gateway.http.webhook_requests import (
    MAX_SIGNATURE_BYTES,
    MAX_SIGNATURES,
    REPLAY_S,
    TOLERANCE_S,
    Replays,
    Signed,
    WebhookFault,
    alert_id,
    read_headers,
)

NOW = 1_700_000_000
SECRET, OTHER = b"s" * 24, b"o" * 24
BODY = b'{"severity":"low"}'
ID = "msg_1"


def sign(body: bytes = BODY, *, secret: bytes = SECRET, id: str = ID, timestamp: object = NOW) -> str:
    digest = hmac.new(secret, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def verify(
    signature: str, body: bytes = BODY, *, id: str = ID, timestamp: str = str(NOW), now: float = NOW,
    secrets: tuple[bytes, ...] = (SECRET,),
) -> Signed:  # fmt: skip
    signed = read_headers([id], [timestamp], [signature], now_s=now)
    signed.verify(body, secrets)
    return signed


# ── signatures ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_example_of_the_reference_library_is_accepted() -> None:
    verify(
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", b'{"test": 2432232314}', id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp="1614265330", now=1_614_265_330, secrets=(base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),),
    )  # fmt: skip


def test_a_signed_request_says_its_id() -> None:
    assert verify(sign()).id == ID


@pytest.mark.parametrize(
    "signature",
    [
        f"{sign(secret=OTHER)} {sign()}", f"v2,xxxx v1a,yyyy {sign()}", f"v1,short v1,!!!! v1, {sign()} v1,AAAA",
        f"  {sign()}  ", " ".join([sign(secret=OTHER)] * (MAX_SIGNATURES - 1) + [sign()]),
    ],
)  # fmt: skip
def test_one_right_signature_among_others_is_enough(signature: str) -> None:
    verify(signature)


def test_any_of_several_secrets_will_do_while_they_are_rotated() -> None:
    for secret in (SECRET, OTHER):
        verify(sign(secret=secret), secrets=(OTHER, SECRET))
    with pytest.raises(WebhookFault):
        verify(sign(secret=b"x" * 24), secrets=(OTHER, SECRET))


@pytest.mark.parametrize(
    ("signature", "changes"),
    [
        (sign(), {"body": BODY + b" "}),
        (sign(), {"body": b""}),
        (sign(), {"id": "msg_2"}),
        (sign(), {"timestamp": str(NOW + 1)}),
        (sign(secret=OTHER), {}),
        (sign().replace("v1,", "v2,"), {}),
        (sign().removeprefix("v1,"), {}),
        (sign()[:-4], {}),
        (sign() + "AAAA", {}),
        (sign().replace("v1,", "V1,"), {}),
        (sign().replace("v1,", "v1 ,"), {}),
        (hmac.new(SECRET, f"{ID}.{NOW}.".encode() + BODY, hashlib.sha256).hexdigest(), {}),
        ("", {}),
        ("v1,", {}),
        ("v1", {}),
    ],
)
def test_whatever_is_changed_is_refused(signature: str, changes: dict[str, object]) -> None:
    with pytest.raises(WebhookFault):
        verify(signature, **changes)  # type: ignore[arg-type]


def test_without_secrets_nothing_is_accepted() -> None:
    with pytest.raises(WebhookFault):
        verify(sign(), secrets=())


@pytest.mark.parametrize("off", [-TOLERANCE_S, -1, 0, 1, TOLERANCE_S])
def test_a_clock_may_be_off_by_five_minutes(off: int) -> None:
    verify(sign(), now=NOW + off)


@pytest.mark.parametrize("off", [-TOLERANCE_S - 1, TOLERANCE_S + 1, 86_400, -86_400])
def test_and_by_no_more(off: int) -> None:
    with pytest.raises(WebhookFault, match="time"):
        verify(sign(), now=NOW + off)


@pytest.mark.parametrize(
    "timestamp",
    ["", "x", "1.7e9", f"{NOW}.0", f" {NOW}", f"+{NOW}", f"-{NOW}", f"{NOW}\n", "9" * 13, "１７０００００００", "inf"],
)
def test_a_time_that_is_no_number_of_seconds_is_refused(timestamp: str) -> None:
    with pytest.raises(WebhookFault):
        verify(sign(timestamp=timestamp), timestamp=timestamp)


@pytest.mark.parametrize("id", ["", "a b", "a.b", ".", "a\n", "a\t", "é", "a" * 129, "a\x00", "a\x7f"])
def test_an_id_that_cannot_be_one_is_refused(id: str) -> None:
    with pytest.raises(WebhookFault):
        verify(sign(id=id), id=id)


def test_a_full_stop_cannot_move_from_one_signed_part_to_another() -> None:
    signed = sign(b"2.rest", id="a", timestamp=NOW)
    with pytest.raises(WebhookFault):
        verify(signed, b"rest", id=f"a.{NOW}", timestamp="2", now=2)


@pytest.mark.parametrize("missing", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 2])
def test_each_header_comes_once(missing: int, count: int) -> None:
    headers = [[ID], [str(NOW)], [sign()]]
    headers[missing] = headers[missing] * count
    with pytest.raises(WebhookFault):
        read_headers(*headers, now_s=NOW)


def test_the_signatures_are_bounded_in_number_and_length() -> None:
    with pytest.raises(WebhookFault, match="too many"):
        verify(" ".join(["v1,AAAA"] * MAX_SIGNATURES + [sign()]))
    with pytest.raises(WebhookFault, match="too long"):
        verify("v1," + "A" * MAX_SIGNATURE_BYTES + " " + sign())


@given(st.text(max_size=40), st.text(max_size=20), st.text(max_size=80), st.binary(max_size=40))
def test_anything_may_come_and_nothing_of_it_is_accepted(id: str, timestamp: str, signature: str, body: bytes) -> None:
    with pytest.raises(WebhookFault):
        verify(signature, body, id=id, timestamp=timestamp)


@given(st.binary(max_size=200), st.binary(min_size=24, max_size=64), st.integers(NOW - 300, NOW + 300))
def test_what_is_signed_is_accepted_and_its_neighbour_is_not(body: bytes, secret: bytes, timestamp: int) -> None:
    signature = sign(body, secret=secret, timestamp=timestamp)
    verify(signature, body, timestamp=str(timestamp), secrets=(secret,))
    with pytest.raises(WebhookFault):
        verify(signature, body + b"\0", timestamp=str(timestamp), secrets=(secret,))


# ── ids of alerts ────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_alert_has_the_id_of_its_request_and_one_in_a_list_its_place_too() -> None:
    assert alert_id("msg_1", None) == "msg_1"
    assert [alert_id("msg_1", number) for number in range(2)] == ["msg_1.0", "msg_1.1"]


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="."), min_size=1, max_size=128))
def test_those_ids_fit_and_differ(webhook_id: str) -> None:
    ids = [alert_id(webhook_id, number) for number in (None, 0, 1, 99)]
    assert len(set(ids)) == 4
    for each in ids:
        check_draft({"severity": "low", "message": "m", "id": each})


# ── replays ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_accepted_is_known_again_with_its_alerts() -> None:
    replays = Replays()
    assert replays.accepted("a", 0) is None
    replays.accept("a", ["x", "y"], 0)
    assert replays.accepted("a", REPLAY_S) == ("x", "y")
    assert replays.accepted("b", 0) is None


def test_it_is_forgotten_when_its_signature_is_too_old_anyway() -> None:
    replays = Replays()
    replays.accept("a", ["x"], 0)
    assert replays.accepted("a", REPLAY_S + 1) is None
    assert (len(replays), replays.size) == (0, 0)


def test_the_memory_outlasts_every_moment_at_which_a_signature_is_good() -> None:
    assert REPLAY_S >= 2 * TOLERANCE_S


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 5), st.floats(0, 30)), max_size=80))
def test_the_memory_is_bounded_in_ids_and_in_time(steps: list[tuple[str, int, float]]) -> None:
    replays = Replays(keep_s=60, most=10)
    now, accepted = 0.0, {}
    for name, alerts, gap in steps:
        now += gap
        known = replays.accepted(name, now)
        if known is not None:
            assert known == accepted[name][1]
            assert now - accepted[name][0] <= 60
            continue
        ids = tuple(f"{name}.{number}" for number in range(alerts))
        replays.accept(name, ids, now)
        accepted[name] = (now, ids)
        assert replays.accepted(name, now) == ids
        assert replays.size <= 10
        assert replays.size >= len(replays)
    replays.accepted("x", now + 61)
    assert (len(replays), replays.size) == (0, 0)
