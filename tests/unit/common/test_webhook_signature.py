"""Signing as Standard Webhooks has it; what is signed here is what the receiving side takes."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchout.common.alerts.webhook_signature import WEBHOOK_ID, sign, webhook_id_of
from watchout.gateway.http.webhook_requests import WebhookFault, read_headers

SECRET, OTHER = b"s" * 24, b"t" * 32


def verify(headers: dict[str, str], body: bytes, secrets: list[bytes]) -> None:
    lists = [[headers[name]] for name in ("webhook-id", "webhook-timestamp", "webhook-signature")]
    read_headers(*lists, now_s=1_700_000_000).verify(body, secrets)


def test_the_example_of_the_specification_has_the_signature_of_the_specification() -> None:
    # standard-webhooks.md, "Signature scheme", as in the test vectors of its reference libraries.
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [secret])
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.binary(max_size=200))
def test_a_signed_request_is_taken_by_a_receiver_with_any_of_the_secrets(body: bytes) -> None:
    headers = sign("a1", 1_700_000_100, body, [SECRET, OTHER])
    assert len(headers["webhook-signature"].split()) == 2
    for secret in (SECRET, OTHER):
        verify(headers, body, [secret])


def test_a_changed_body_id_or_time_does_not_fit() -> None:
    headers = sign("a1", 1_700_000_100, b"{}", [SECRET])
    for changed, body in (
        (headers, b"{ }"),
        ({**headers, "webhook-id": "a2"}, b"{}"),
        ({**headers, "webhook-timestamp": "1700000101"}, b"{}"),
    ):
        with pytest.raises(WebhookFault):
            verify(changed, body, [SECRET])


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128))
def test_the_request_has_the_alerts_id_or_where_that_has_a_full_stop_a_digest_of_it(alert_id: str) -> None:
    found = webhook_id_of(alert_id)
    assert WEBHOOK_ID.fullmatch(found)
    assert found == alert_id or ("." in alert_id and webhook_id_of(alert_id) == found != webhook_id_of(alert_id + "x"))
